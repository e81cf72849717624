"""How much of 64 cores `spai-run` keeps busy, simulated: an encoder that sleeps on each of its streams.

Files, decoding, cropping and batching are real, on the cores that are here; what 64 cores would compute takes its time
and none of theirs. The encoder is fast, which makes it the harder to keep busy: a tile of ViT-B/16 takes two cores a
sixteenth of a second, half of what bf16 takes a processor with AMX.
"""

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Report
from photographs import write_photographs

from spai_runtime.detector import Detector
from spai_runtime.engines.base import Array, HostEngine
from spai_runtime.engines.streams import share
from spai_runtime.files.sources import Item
from spai_runtime.manifest import Artifact, Graph, Manifest, Threshold
from spai_runtime.scoring.pipeline import score_items
from spai_runtime.views import Tiles

CORES = 64
TARGET = 0.9
IMAGES = 400
SECONDS = 2 / 32  # of a batch of two tiles on four cores; each differs from it by up to a fifth
MANIFEST = Manifest(
    name="simulated",
    detector="spai",
    views=Tiles(224, 224, 4),
    features=8,
    threshold=Threshold(0.5, "simulated"),
    notice="",
    artifacts=(Artifact("onnx", "int8", Graph("encoder.onnx", "0" * 64), Graph("head.onnx", "0" * 64)),),
)


class Sleeping(HostEngine):
    """An encoder on cores that are not here.

    :param streams: that it has
    """

    device, label, batch_size = "cpu", "simulated, cpu", 2

    def __init__(self, streams: int) -> None:
        self.streams, self.busy, self._lock = streams, 0.0, threading.Lock()
        self._random = random.Random(0)

    def run(self, batch: Array) -> list[Array]:
        """:returns: zeros (N, D) float32"""
        with self._lock:
            seconds = SECONDS * len(batch) / self.batch_size * self._random.uniform(0.8, 1.2)
            self.busy += seconds
        time.sleep(seconds)
        return [np.zeros((len(batch), MANIFEST.features), np.float32)]

    def close(self) -> None:
        """Holds nothing."""


class Mean(HostEngine):
    """A head that costs nothing."""

    device, label, batch_size = "cpu", "mean, cpu", 1

    def run(self, batch: Array) -> list[Array]:
        """:returns: logit (B, 1)"""
        return [batch.mean(axis=(1, 2), dtype=np.float32)[:, None]]

    def close(self) -> None:
        """Holds nothing."""


def test_streams(benchmark: Any, report: Report, tmp_path: Path) -> None:
    paths = write_photographs(tmp_path / "photographs", 1024, 1024, 8)
    items = [Item(path, path.name) for path in (paths * IMAGES)[:IMAGES]]
    streams, threads = share(CORES)
    encoder = Sleeping(streams)
    detector = Detector(MANIFEST, encoder, Mean(), MANIFEST.threshold)
    wall = benchmark.pedantic(_seconds, args=(detector, items), rounds=1)
    report(
        "streams",
        share_of_cores_busy=encoder.busy * threads / (CORES * wall),
        target=TARGET,
        cores=CORES,
        streams=streams,
        threads=threads,
        images=IMAGES,
        images_per_s=IMAGES / wall,
    )


def _seconds(detector: Detector, items: list[Item]) -> float:
    started = time.perf_counter()
    assert not any(result.error for result in score_items(detector, items))
    return time.perf_counter() - started
