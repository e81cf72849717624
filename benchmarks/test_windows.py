"""An image of 100 megapixels through Corvi2023 at its published size, random weights: time and memory.

Time is compared with the arithmetic: all windows, where each takes, by its pixels, the time that one of full size takes
alone. Memory is all that the process has at its peak (libraries, weights, decoder, crops, a window's maps) but the
decoded pixels. In bf16, OpenVINO computes matrix products alone, and the network has none: there is fp32.
"""

import json
import math
import os
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import Report
from cpu.children import finish, start
from cpu.contender import CONTENDERS, Contender
from models import exported_detector
from photographs import write_photographs
from PIL import Image
from text import slug
from variables import words
from windowed_run import computed_pixels

from spai_train.detectors.corvi2023 import WINDOW

SIDE = int(os.environ.get("SPAI_BENCH_SIDE", "10000"))
WIDTH = int(os.environ.get("SPAI_BENCH_WIDTH", "64"))
WINDOWS = [int(side) for side in words(os.environ.get("SPAI_BENCH_WINDOWS", "616,672,728"))]
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
ENGINES = [one for one in CONTENDERS if one.precision == "fp32"]
REST = 200  # pixels of an image that go beyond one window: it has four, of four shapes
MEMORY_TARGET, TIME_TARGET = 2000, 1.1  # megabytes beside the pixels, and times the arithmetic

pytestmark = pytest.mark.timeout(4 * 3600)  # an image takes half an hour on two cores


@pytest.mark.parametrize("contender", ENGINES, ids=lambda one: slug(one.name))
def test_windows(benchmark: Any, report: Report, contender: Contender, tmp_path: Path) -> None:
    path = write_large(tmp_path / "large.jpg", SIDE)
    row = benchmark.pedantic(_run, args=(contender, path), rounds=1)
    assert math.isfinite(row["logit"])
    report(
        f"windows-{slug(contender.name)}",
        **row,
        memory_target_mb=MEMORY_TARGET,
        time_target=TIME_TARGET,
        channels=WIDTH,
    )


def test_sides_of_windows(benchmark: Any, report: Report, tmp_path: Path) -> None:
    """What an image of SIDE pixels costs in windows of each size, by the time of one of them; processes take turns."""
    rows = benchmark.pedantic(_sides, args=(tmp_path,), rounds=1)
    report("windows-sides", engines=rows, megapixels=SIDE**2 / 1e6, rounds=ROUNDS, channels=WIDTH)


def write_large(path: Path, side: int) -> Path:
    """A JPEG of a photograph of at most 2500 pixels a side, again and again."""
    (tile,) = write_photographs(path.parent / path.stem, min(side, 2500), min(side, 2500), 1)
    pixels = np.asarray(Image.open(tile))
    times = math.ceil(side / len(pixels))
    Image.fromarray(np.tile(pixels, (times, times, 1))[:side, :side]).save(path, quality=90)
    return path


def _run(contender: Contender, image: Path, side: int | None = None) -> dict[str, Any]:
    directory = str(exported_detector("corvi2023", width=WIDTH))
    written, _ = finish(start("windowed_run", [directory, contender.name, str(image), *([str(side)] if side else [])]))
    row: dict[str, Any] = json.loads(written)
    return row


def _sides(folder: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Of each contender and side of a window."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {one.name: {side: [] for side in WINDOWS} for one in ENGINES}
    images = {side: write_large(folder / f"{side}.jpg", side + REST) for side in WINDOWS}
    for _ in range(ROUNDS):
        for contender in ENGINES:
            for side in WINDOWS:
                found[contender.name][side].append(_run(contender, images[side], side))
    return {name: {side: _of_large(rows) for side, rows in sides.items()} for name, sides in found.items()}


def _of_large(rows: list[dict[str, Any]]) -> dict[str, float]:
    """:param rows: of one contender and side, one a round"""
    window = msgspec.structs.replace(WINDOW, side=rows[0]["window"])
    computed = computed_pixels(window, SIDE, SIDE)
    cpu = median(row["window_cpu_s"] for row in rows)
    return {
        "computed_pixels": computed,
        "cpu_s_per_megapixel": cpu / window.side**2 * 1e6 * computed,
        "beside_pixels_mb": max(row["beside_pixels_mb"] for row in rows),
    }
