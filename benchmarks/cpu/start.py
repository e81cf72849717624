"""A fresh `spai-run`: how long it takes to the first score, and how much memory it takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpu import children
from cpu.bench import Bench, Rows
from cpu.fresh_run import peak
from cpu.settings import START

IMAGES = 4


@dataclass(frozen=True)
class Started:
    """:param seconds: from the start of the process to the first row
    :param peak: most resident memory in bytes; None where the system does not tell
    """

    seconds: float
    peak: int | None


def measure(bench: Bench, rows: Rows) -> None:
    """The first process fills the caches and takes a few images; the second one takes one, and its start counts."""
    images = bench.photographs[:IMAGES]
    for row, contender in rows:
        with bench.results.part(row, START) as figures:
            options = ["--engine", str(bench.exports.published(contender)), *contender.options]
            first, second = started(options, images), started(options, images[:1])
            figures |= {"images": len(images), "first_start_s": first.seconds, "second_start_s": second.seconds}
            if first.peak and second.peak:
                figures["peak_mb"] = max(first.peak, second.peak) / 1e6


def started(options: Sequence[str], images: Sequence[Path]) -> Started:
    """:param options: of `spai-run`
    :raises ChildError: it failed, and why
    """
    begun = time.perf_counter()
    child = children.start("cpu.fresh_run", [*map(str, images), *options, "--format", "csv"])
    assert child.stdout is not None
    child.stdout.readline()  # the header
    row = child.stdout.readline()
    seconds = time.perf_counter() - begun
    _, said = children.finish(child)
    assert row, "spai-run wrote no row"
    return Started(seconds, peak(said))
