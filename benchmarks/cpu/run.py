"""`spai-run`'s pipeline from JPEGs on disk, in turns with its encoder alone on the same views."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from goals import Row
from measure import ratio, take_turns
from models import exported_detector
from runs import encode, run, views_of

from cpu.bench import Bench, Rows
from cpu.settings import BESIDE, RUN
from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item

FEWEST = 8  # images of a turn, however long they take
ROUNDS = 2
OTHER = "community-forensics"  # its ViT-S of 384 pixels, with random weights


def measure(bench: Bench, rows: Rows) -> None:
    """Of each contender."""
    for row, contender in rows:
        with bench.results.part(row, RUN) as figures, contender.load(bench.exports.published(contender)) as detector:
            figures.update(end_to_end(detector, bench.photographs, bench.seconds))


def measure_beside(bench: Bench, rows: Rows) -> None:
    """Another detector on the same images, which has no int8 graph here."""
    for row, contender in rows:
        if contender.precision != "int8":
            with bench.results.part(row, BESIDE) as figures, contender.load(exported_detector(OTHER)) as detector:
                figures.update(end_to_end(detector, bench.photographs, bench.seconds))


def end_to_end(detector: Detector, paths: Sequence[Path], seconds: float) -> Row:
    """:param paths: of images, of which as many are taken as last about that long"""
    items = [Item(path, path.name) for path in paths]
    run(detector, items[:4])  # what is made once is made
    begun = time.perf_counter()
    run(detector, items[:4])
    count = round(seconds * 4 / (time.perf_counter() - begun))
    items = items[: max(FEWEST, count)]
    batches = views_of(detector, items)
    times = take_turns({"run": lambda: run(detector, items), "encoder": lambda: encode(detector, batches)}, ROUNDS)
    return {
        "images": len(items),
        "views": sum(map(len, batches)),
        "images_per_s": len(items) / median(times["run"].wall),
        "encoder_images_per_s": len(items) / median(times["encoder"].wall),
        "against_encoder": ratio(times["run"].wall, times["encoder"].wall),
    }
