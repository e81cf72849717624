"""A whole measurement of the GPU that is there, of what the settings want."""

import gc
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import machine
from models import random_model
from reference import Reference

from gpu.bench import Bench, Gpu
from gpu.ceiling import device_facts, exact_fp32, matmul_rates, used_memory, uuid
from gpu.contender import Contender
from gpu.end_to_end import SETS, Photographs, end_to_end
from gpu.engine_runners import engine_contenders
from gpu.memory import peaks
from gpu.results import Results
from gpu.settings import END_TO_END, ROWS, Settings
from gpu.torch_runners import torch_contenders
from spai_train.detectors.spai.model import SPAI

RUN = (
    "ONNX Runtime fp16 fused attention",
    "TensorRT fp16",
    "TensorRT for RTX fp16",
)  # contenders that are run end to end too


def measure(settings: Settings, folder: Path | None) -> Results:
    """:param folder: of the result file; None writes none
    :returns: what is in it
    """
    model = random_model(settings.model)
    bench = prepared(settings, model, folder)
    with tempfile.TemporaryDirectory() as photographs:
        run(bench, everyone(settings, model), Path(photographs))
    bench.results.finish()
    return bench.results


def prepared(settings: Settings, model: SPAI, folder: Path | None) -> Bench:
    """The device and its ceilings, and what contenders are compared with."""
    exact_fp32()
    facts: dict[str, Any] = {"model": settings.model, "settings": asdict(settings)}
    facts |= {"device": device_facts(), "machine": machine()}
    side = model.config.tile_size
    tiles = np.random.default_rng(0).integers(0, 256, (max(settings.batches), side, side, 3), dtype=np.uint8)
    reference, matmul = Reference(model, tiles), matmul_rates(settings.seconds)
    peak, facts["memory"] = peaks(uuid(), used_memory)
    facts |= {"flop_per_tile": reference.flop_per_tile, "matmul_tflops": matmul, "tf32": False}
    return Bench(Gpu(peak, free, matmul), reference, Results(folder, facts), settings)


def everyone(settings: Settings, model: SPAI) -> list[Contender]:
    """Those that the settings want, upstream's formulation first."""
    upstream, compiled = torch_contenders(model, settings.compile)
    engines = engine_contenders(settings.model, settings.batches[0])
    order = [upstream, *engines[:2], compiled, *engines[2:]]
    return [contender for contender in order if settings.wants(contender.name)]


def run(bench: Bench, contenders: list[Contender], folder: Path) -> None:
    """The first batch size, end to end at that, then the other batch sizes.

    :param folder: for the photographs of end to end
    """
    first, *others = bench.settings.batches
    rows = ROWS in bench.settings.parts
    if rows:
        bench.run(contenders, first)
    if END_TO_END in bench.settings.parts:
        _end_to_end(bench, contenders, first, folder)
    for batch in others if rows else ():
        bench.run(contenders, batch)


def free() -> None:
    """What PyTorch and, once it was imported, CuPy keep for later goes back to the GPU."""
    gc.collect()
    torch.cuda.empty_cache()
    if cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()


def _end_to_end(bench: Bench, contenders: list[Contender], batch: int, folder: Path) -> None:
    for name, sizes in SETS.items():
        runners = [contender for contender in bench.left(contenders) if contender.name in RUN]
        if runners:
            photographs = Photographs.write(name, folder / name.replace(" ", "-"), sizes)
        for contender in runners:
            end_to_end(bench, contender, batch, photographs)
