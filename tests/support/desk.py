"""A benchmark's Bench around contenders that are made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu.bench import Bench, Gpu
from gpu.contender import Contender
from gpu.memory import Compared
from gpu.results import Results
from gpu.settings import Settings
from numpy.typing import NDArray
from reference import Reference

from spai_train.detectors.spai.model import SPAI

FACTS = {
    "model": "vitb",
    "device": {"name": "NVIDIA H200", "context_mb": 500.0},
    "settings": {"batches": [4, 1]},
}
BATCHES = (4, 1)


class Clock:
    """Seconds that pass only where a lane says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeLane:
    """Knows its features, takes its time, and keeps count."""

    def __init__(self, clock: Clock, seconds: float, features: Callable[[], NDArray[np.float32]]) -> None:
        self.clock, self.seconds, self.features = clock, seconds, features
        self.under_way = False
        self.launches = 0

    def launch(self) -> None:
        assert not self.under_way
        self.under_way, self.launches = True, self.launches + 1

    def wait(self) -> NDArray[np.float32]:
        assert self.under_way
        self.under_way = False
        self.clock.now += self.seconds
        return self.features()


class FakeRunner:
    """Two lanes; `closed` once its memory is given back."""

    default_batch: int | None = 4
    graph: bool | None = True

    def __init__(self, *lanes: FakeLane) -> None:
        self.lanes, self.closed = lanes, False

    def close(self) -> None:
        self.closed = True


class Desk:
    """A Bench with the tiny model and made-up contenders."""

    def __init__(self, model: SPAI, folder: Path, clock: Any, **settings: Any) -> None:
        side = model.config.tile_size
        tiles = np.random.default_rng(0).integers(0, 256, (max(BATCHES), side, side, 3), dtype=np.uint8)
        with torch.inference_mode():
            self.features = model.encoder(torch.from_numpy(tiles)).numpy()
        self.clock, self.folder, self.memory, self.runners = clock, folder, [1_000_000], list[FakeRunner]()
        self.results = Results(folder, dict(FACTS))
        self.freed = 0
        gpu = Gpu(lambda: Compared(lambda: self.memory[0]), self._free, {"fp16": 100.0, "fp8": "RuntimeError: no fp8"})
        self.bench = Bench(
            gpu, Reference(model, tiles), self.results, Settings(batches=BATCHES, **settings), clock=clock
        )

    def contender(
        self,
        name: str,
        seconds: float = 0.01,
        off_by: float = 0.0,
        fails: Callable[[int, int], None] = lambda *_: None,
        precision: str = "fp16",
    ) -> Contender:
        """:param fails: batch size, number of the wait → what may raise; the load is number 0"""

        def load(tiles: NDArray[np.uint8]) -> FakeRunner:
            calls = 0

            def features() -> NDArray[np.float32]:
                nonlocal calls
                calls += 1
                fails(len(tiles), calls)
                return (self.features[: len(tiles)] * (1 + off_by)).astype(np.float32)

            fails(len(tiles), 0)
            self.memory[0] += 250_000_000
            runner = FakeRunner(*(FakeLane(self.clock, seconds, features) for _ in range(2)))
            self.runners.append(runner)
            return runner

        return Contender(name, precision, load)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.results.rows if row["backend"] == name]

    def file(self) -> Any:
        return json.loads((self.folder / "gpu-nvidia-h200.json").read_text(encoding="utf-8"))

    def _free(self) -> None:
        self.freed += 1
