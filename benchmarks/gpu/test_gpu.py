"""The encoder on one NVIDIA GPU, by back end, precision and batch size, and `spai-run` end to end (README.md here)."""

import gc
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import machine
from models import random_model

from gpu.bench import Bench, Gpu
from gpu.ceiling import device_facts, exact_fp32, matmul_rates, used_memory
from gpu.contender import Contender
from gpu.end_to_end import SETS, Photographs, end_to_end
from gpu.engine_runners import engine_contenders
from gpu.reference import Reference
from gpu.results import Results
from gpu.settings import Settings
from gpu.torch_runners import torch_contenders
from spai_train.detectors.spai.model import SPAI

RUN = ("ONNX Runtime fp16 fused attention", "TensorRT fp16")  # contenders that are run end to end too


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU")
def test_gpu(benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    settings, folder = Settings.of(os.environ), request.config.getoption("json_results")
    model = random_model(settings.model)
    bench = prepared(settings, model, Path(folder) if folder else None)
    contenders = everyone(settings, model)
    benchmark.pedantic(measure, args=(bench, contenders, tmp_path), rounds=1)
    bench.results.finish()
    assert any("tiles_per_s" in row for row in bench.results.rows), "no contender ran"


def prepared(settings: Settings, model: SPAI, folder: Path | None) -> Bench:
    """The device and its ceilings, and what contenders are compared with."""
    exact_fp32()
    facts: dict[str, Any] = {"model": settings.model, "settings": asdict(settings)}
    facts |= {"device": device_facts(), "machine": machine()}
    side = model.config.tile_size
    tiles = np.random.default_rng(0).integers(0, 256, (max(settings.batches), side, side, 3), dtype=np.uint8)
    reference, matmul = Reference(model, tiles), matmul_rates(settings.seconds)
    facts |= {"flop_per_tile": reference.flop_per_tile, "matmul_tflops": matmul, "tf32": False}
    return Bench(Gpu(used_memory, free, matmul), reference, Results(folder, facts), settings)


def everyone(settings: Settings, model: SPAI) -> list[Contender]:
    """Those that the settings want, upstream's formulation first."""
    upstream, compiled = torch_contenders(model, settings.compile)
    engines = engine_contenders(settings.model, settings.batches[0])
    order = [upstream, *engines[:2], compiled, *engines[2:]]
    return [contender for contender in order if settings.wants(contender.name)]


def measure(bench: Bench, contenders: list[Contender], folder: Path) -> None:
    """The first batch size, end to end at that, then the other batch sizes."""
    first, *others = bench.settings.batches
    bench.run(contenders, first)
    for name, sizes in SETS.items():
        runners = [contender for contender in bench.left(contenders) if contender.name in RUN]
        if runners:
            photographs = Photographs.write(name, folder / name.replace(" ", "-"), sizes)
        for contender in runners:
            end_to_end(bench, contender, first, photographs)
    for batch in others:
        bench.run(contenders, batch)


def free() -> None:
    """What PyTorch and CuPy keep for later goes back to the GPU."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        import cupy  # noqa: PLC0415  an extra
    except ImportError:
        return
    cupy.get_default_memory_pool().free_all_blocks()
