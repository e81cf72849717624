"""The exported ViT-B/16 encoder on ONNX Runtime CPU against eager fp32 PyTorch in upstream's formulation.

Both get the same tiles and the same cores and take turns, batch size by batch size; each is judged by its own best
batch size, and ONNX Runtime also by the batch size that the runtime uses by default.
"""

import os
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from baseline import BaselineEncoder
from conftest import Report
from measure import Times, ratio, take_turns
from models import exported, random_model
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract, Engine
from spai_runtime.engines.onnxruntime import CPU_BATCH_SIZE as BATCH_SIZE
from spai_runtime.engines.onnxruntime import OnnxEngine

TARGET = 1.1
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
ENGINE_BATCHES = sorted({1, 2, 4, 8, 16, BATCH_SIZE})
BASELINE_BATCHES = (2, 4, 8)


def test_encoder(benchmark: Any, report: Report) -> None:
    model = random_model("vitb")
    config, baseline = model.config, BaselineEncoder(model.encoder, model.config).eval()
    views = np.random.default_rng(0).integers(0, 256, (max(ENGINE_BATCHES), 224, 224, 3), dtype=np.uint8)
    contract = Contract.encoder((config.tile_size, config.tile_size), config.features)
    engine = OnnxEngine(exported("vitb") / "encoder.onnx", contract)
    with torch.inference_mode():
        difference = _largest_difference(engine, baseline, model.encoder, views[:2])
        assert difference < 1e-3
        contenders = _contenders(engine, baseline, views)
        times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    engine.close()
    _report(report, times, difference)


def _contenders(
    engine: Engine, baseline: BaselineEncoder, views: NDArray[np.uint8]
) -> dict[tuple[str, int], Callable[[], object]]:
    tensor = torch.from_numpy(views)
    runs: dict[tuple[str, int], Callable[[], object]] = {
        ("engine", size): lambda size=size: engine.run(views[:size]) for size in ENGINE_BATCHES
    }
    return runs | {("baseline", size): lambda size=size: baseline(tensor[:size]) for size in BASELINE_BATCHES}


def _largest_difference(
    engine: Engine, baseline: BaselineEncoder, encoder: torch.nn.Module, views: NDArray[np.uint8]
) -> float:
    """Of the features, over all three ways to them."""
    tensor = torch.from_numpy(views)
    found = [engine.run(views)[0], baseline(tensor).numpy(), encoder(tensor).numpy()]
    return float(np.ptp(np.stack(found), axis=0).max())


def _report(report: Report, times: dict[tuple[str, int], Times], difference: float) -> None:
    wall = {key: [seconds / key[1] for seconds in value.wall] for key, value in times.items()}  # seconds a tile
    cpu = {key: [seconds / key[1] for seconds in value.cpu] for key, value in times.items()}
    engine, baseline, default = _best(wall, "engine"), _best(wall, "baseline"), ("engine", BATCH_SIZE)
    report(
        "encoder",
        onnxruntime_tiles_per_s=1 / median(wall[engine]),
        baseline_tiles_per_s=1 / median(wall[baseline]),
        ratio=ratio(wall[baseline], wall[engine]),
        target=TARGET,
        ratio_of_cpu_time=ratio(cpu[_best(cpu, "baseline")], cpu[_best(cpu, "engine")]),
        batch_size=engine[1],
        baseline_batch_size=baseline[1],
        default_batch_size=BATCH_SIZE,
        ratio_at_default=ratio(wall[baseline], wall[default]),
        ratio_of_cpu_time_at_default=ratio(cpu[_best(cpu, "baseline")], cpu[default]),
        tiles_per_s={f"{who} {size}": 1 / median(seconds) for (who, size), seconds in wall.items()},
        tiles_per_cpu_s={f"{who} {size}": 1 / median(seconds) for (who, size), seconds in cpu.items()},
        gmac_per_tile=66,
        largest_difference=difference,
        rounds=ROUNDS,
    )


def _best(seconds: dict[tuple[str, int], list[float]], who: str) -> tuple[str, int]:
    """The contender with that name whose batch size gives the least time a tile."""
    return min((key for key in seconds if key[0] == who), key=lambda key: median(seconds[key]))
