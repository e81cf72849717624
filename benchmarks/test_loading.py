"""What the loader of `fit` delivers from JPEGs, beside what a step of `fit` takes on this CPU: images per second.

Published augmentation, four views of 224 an image; one worker, and one a core. A run reads every file once a worker,
the start of the workers included. The step is the one in bf16, the faster; loader and step run apart.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from conftest import Report
from measure import ratio, take_turns
from photographs import write_photographs
from steps import MODEL, VIEWS, Step, random_batch, trainee

from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE
from spai_train.data.dataset import TrainingImages, load_batches
from spai_train.data.order import Order, Plan
from spai_train.data.stores import Files
from spai_train.data.table import Row

TARGET = 1.0
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
IMAGES = int(os.environ.get("SPAI_BENCH_IMAGES", "64"))
BATCH, PREFETCH, STEP_IMAGES = 4, 2, 2
SETS = {"0.8 MP": (1024, 768, IMAGES), "12 MP": (4000, 3000, IMAGES // 4)}  # width, height, files
CORES = torch.get_num_threads()


class Reading(NamedTuple):
    """A contender: a set of files and the processes that read them."""

    name: str
    workers: int

    def __str__(self) -> str:
        return f"{self.name}, {self.workers} worker{'s' if self.workers > 1 else ''}"

    @property
    def images(self) -> int:
        return SETS[self.name][2] * self.workers

    def run(self, rows: Sequence[Row]) -> None:
        images = TrainingImages(rows, Files(), Augment(FINETUNE, 224), VIEWS, seed=0)
        order = Order(Plan(len(rows), BATCH, epochs=self.workers), seed=0)
        batches = load_batches(images, order, self.workers, PREFETCH, pin=False)
        assert sum(len(batch.labels) for batch in batches if not batch.failures) == self.images


READINGS = [Reading(name, workers) for name in SETS for workers in sorted({1, CORES})]


def test_loading(benchmark: Any, report: Report, tmp_path: Path) -> None:
    rows = {name: _rows(write_photographs(tmp_path / name, *size)) for name, size in SETS.items()}
    model, optimizer = trainee()
    step = Step(model, optimizer, random_batch(model.config, STEP_IMAGES), torch.bfloat16)
    contenders: dict[Any, Callable[[], object]] = {
        reading: lambda reading=reading: reading.run(rows[reading.name]) for reading in READINGS
    }
    step()
    times = benchmark.pedantic(take_turns, args=({**contenders, "step": step}, ROUNDS), rounds=1)
    wall = {reading: [seconds / reading.images for seconds in times[reading].wall] for reading in READINGS}
    cpu = {reading: [seconds / reading.images for seconds in times[reading].cpu] for reading in READINGS}
    learned = [seconds / STEP_IMAGES for seconds in times["step"].wall]
    report(
        f"loading-{MODEL}",
        step_images_per_s=1 / median(learned),
        images_per_s=_rates(wall),
        images_per_s_per_worker={str(reading): 1 / median(wall[reading]) / reading.workers for reading in READINGS},
        images_per_cpu_s=_rates(cpu),
        ratio=ratio(learned, wall[Reading("0.8 MP", CORES)]),
        target=TARGET,
        ratio_12_megapixels=ratio(learned, wall[Reading("12 MP", CORES)]),
        megabytes={name: _mean_size(rows[name]) / 1e6 for name in SETS},
        files={name: len(rows[name]) for name in SETS},
        views=VIEWS,
        rounds=ROUNDS,
    )


def _rates(seconds: Mapping[Reading, list[float]]) -> dict[str, float]:
    return {str(reading): 1 / median(values) for reading, values in seconds.items()}


def _rows(paths: Sequence[Path]) -> list[Row]:
    return [Row(path.name, path, index % 2, "train", "benchmark") for index, path in enumerate(paths)]


def _mean_size(rows: Sequence[Row]) -> float:
    """In bytes."""
    return sum(row.path.stat().st_size for row in rows) / len(rows)
