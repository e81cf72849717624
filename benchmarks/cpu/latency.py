"""Latency of one image of a megapixel, on one core and on two."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from goals import Row

from cpu import children
from cpu.bench import Bench, Rows
from cpu.settings import CORES, LATENCY
from spai_runtime.cores import cores


def measure(bench: Bench, rows: Rows) -> None:
    """Percentiles for each number of cores that there is."""
    images = [bench.photographs[0], bench.megapixel]
    counts = {name: count for name, count in CORES.items() if count <= cores()}
    for row, contender in rows:
        with bench.results.part(row, LATENCY) as figures:
            options = [str(bench.exports.published(contender)), contender.backend, contender.precision]
            for name, count in counts.items():
                figures[name] = percentiles(latencies(options, images, count, bench.seconds))


def latencies(options: Sequence[str], images: Sequence[Path], cores: int, seconds: float) -> list[float]:
    """Seconds of each time that the second image was scored, in a process of its own.

    :param options: directory, back end and precision
    :param images: a small one to warm up with, and the one that counts
    :param cores: that the process has
    :raises ChildError: it failed, and why
    """
    arguments = [*options, *map(str, images), str(cores), str(seconds)]
    written, _ = children.finish(children.start("cpu.repeated_score", arguments))
    found: list[float] = json.loads(written)
    return found


def percentiles(seconds: Sequence[float]) -> Row:
    """Of the times of images."""
    half, last = np.percentile(seconds, [50, 99])
    return {"p50_s": float(half), "p99_s": float(last), "images": len(seconds)}
