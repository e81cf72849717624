"""TensorRT plans of the benchmarks' models, built on this GPU and not kept from one run to the next."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from models import CONFIGS, exported, manifest

from spai_export.choices import Precision, TrtFor
from spai_export.modelopt import require_modelopt
from spai_export.quantize import quantize
from spai_export.tensorrt.plans import ENCODER_PLAN, BuildOptions, build
from spai_export.tensorrt.platforms import Platform, choose
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.errors import EngineError
from spai_runtime.manifest import FILE_NAME

CALIBRATION = 16  # views; what is measured is speed, and random weights have no accuracy to keep


def planned(model: str, precision: Precision, batch_size: int, device: str, trt_for: TrtFor = TrtFor.GPU) -> Path:
    """:returns: the encoder's plan, in a directory whose detector.json names it
    :raises UserError: the TensorRT, the GPU or ModelOpt is missing, or one of them refuses a graph
    """
    options = BuildOptions(batch_size, device=device, trt_for=trt_for)
    _check(choose(options), precision, options)  # before anything is exported for it
    source = quantised(model, precision) if precision.quantised else exported(model, precision)
    directory = source.with_name(f"{source.name}-{trt_for}-{batch_size}")
    directory.mkdir(exist_ok=True)
    for name in ("encoder.onnx", "head.onnx"):
        shutil.copy(source / name, directory)
    graphs = manifest(model, precision, directory)
    built = build(directory, graphs, directory, options)
    described = replace(graphs, artifacts=(*graphs.artifacts, *built.artifacts))
    (directory / FILE_NAME).write_bytes(described.dump())
    return directory / ENCODER_PLAN


def _check(platform: Platform, precision: Precision, options: BuildOptions) -> None:
    """:raises EngineError: there is no GPU, or none that plans of this precision are for"""
    gpu = Gpu.find(options.device)
    capabilities = platform.target(precision.value, options.batch_size, options).get("compute_capabilities")
    if capabilities and gpu.capability not in capabilities:
        raise EngineError(f"{gpu.name} is of compute capability {gpu.capability}, and plans for {capabilities}")


def quantised(model: str, precision: Precision) -> Path:
    """:returns: a directory with the two graphs, the encoder quantised on noise such as contenders are timed on"""
    require_modelopt()
    source = exported(model, Precision.FP16)
    directory = source.with_name(f"{source.name}-{precision}")
    directory.mkdir(exist_ok=True)
    shutil.copy(source / "head.onnx", directory)
    side = CONFIGS[model].tile_size
    views = np.random.default_rng(1).integers(0, 256, (CALIBRATION, side, side, 3), dtype=np.uint8)
    quantize(source / "encoder.onnx", precision, views, directory / "encoder.onnx")
    return directory
