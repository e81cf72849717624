"""The whole pipeline over 100 JPEGs of mixed sizes against its encoder alone on the same tiles, cropped beforehand.

What the pipeline adds is reading, decoding, cropping, batching and the head. A third contender is the pipeline around
an encoder that does nothing: on a busy machine its processor time bounds the overhead where two long times cannot. The
medium model (width 384, 6 blocks, 8 GMAC a tile) makes that share larger than the published one would;
`SPAI_BENCH_MODEL=vitb` runs the published one on images of 4 tiles.
"""

import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from conftest import Report
from measure import ratio, take_turns
from models import CONFIGS, exported
from PIL import Image
from runs import encode, run, views_of

from spai_runtime.detector import Detector
from spai_runtime.engines.base import Array, HostEngine
from spai_runtime.engines.onnxruntime import CPU_BATCH_SIZE as BATCH_SIZE
from spai_runtime.files.sources import Item

TARGET = 1.1
MODEL = os.environ.get("SPAI_BENCH_MODEL", "medium")
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
IMAGES = 100
SIDES = {"tiny": (448, 896), "medium": (448, 896), "vitb": (448, 672)}  # pixels: 4 to 9 tiles, or 4


def test_run(benchmark: Any, report: Report, tmp_path: Path) -> None:
    items = [Item(path, path.name) for path in _write_images(tmp_path)]
    with Detector.load(exported(MODEL), device="cpu") as detector:
        views = views_of(detector, items)
        idle = Detector(detector.manifest, IdleEngine(detector.manifest.features), detector.head, detector.threshold)
        contenders = {
            "run": lambda: run(detector, items),
            "encoder": lambda: encode(detector, views),
            "rest": lambda: run(idle, items),
        }
        run(detector, items[:4])
        times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    whole, encoder, rest = times["run"], times["encoder"], times["rest"]
    report(
        f"run-{MODEL}",
        run_s=median(whole.wall),
        encoder_s=median(encoder.wall),
        rest_s=median(rest.wall),
        ratio=ratio(whole.wall, encoder.wall),
        target=TARGET,
        ratio_of_cpu_time=ratio(whole.cpu, encoder.cpu),
        ratio_of_cpu_time_from_rest=1 + ratio(rest.cpu, encoder.cpu),
        images=IMAGES,
        tiles=sum(map(len, views)),
        megapixels=sum(width * height for width, height in map(_size, items)) / 1e6,
        images_per_s=IMAGES / median(whole.wall),
        batch_size=len(views[0]),
        model=f"width {CONFIGS[MODEL].width}, {CONFIGS[MODEL].depth} blocks",
        rounds=ROUNDS,
    )


class IdleEngine(HostEngine):
    """An encoder that costs nothing.

    :param features: D
    """

    device, label = "cpu", "nothing, cpu"
    batch_size = BATCH_SIZE

    def __init__(self, features: int) -> None:
        self._features = features

    def run(self, batch: Array) -> list[Array]:
        """:returns: zeros (N, D) float32"""
        return [np.zeros((len(batch), self._features), np.float32)]

    def close(self) -> None:
        """Holds nothing."""


def _write_images(folder: Path) -> list[Path]:
    """JPEGs of quality 90 with the file size of photographs: smooth shapes under a little noise."""
    random = np.random.default_rng(0)
    low, high = SIDES[MODEL]
    paths = []
    for index in range(IMAGES):
        width, height = map(int, random.integers(low, high, 2))
        shapes = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(shapes) + random.normal(0, 4, (height, width, 1))
        paths.append(folder / f"{index:03d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def _size(item: Item) -> tuple[int, int]:
    with Image.open(item.path) as image:
        return image.size
