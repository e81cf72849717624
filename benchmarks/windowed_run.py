"""`python -m windowed_run DIRECTORY CONTENDER IMAGE [SIDE]`: one image of any size through a detector's windows.

It scores the image as `spai-run` does, and says in a line of JSON how long that took, what one window alone takes, and
the most memory that this process had. It imports nothing else that takes memory.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
from cpu.contender import CONTENDERS
from cpu.fresh_run import STATUS, peak

from spai_runtime.detector import Detector
from spai_runtime.engines.base import Array, Engine, HostEngine
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import score_items
from spai_runtime.views import WholeImage, Window

ALONE = 20  # times at most that the window alone is run, between those of the image


class Interleaved(HostEngine):
    """An encoder that runs one and the same window again and again, between those that it is given.

    So what else the machine does falls on both alike.

    :param side: of that window, in pixels
    :param every: so many runs between two of it
    :ivar wall, cpu: seconds of each run of it, on the clock and of all threads
    """

    def __init__(self, encoder: Engine, side: int, every: int) -> None:
        self.device, self.label, self.batch_size = encoder.device, encoder.label, encoder.batch_size
        self.computes, self.streams = encoder.computes, encoder.streams
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._encoder, self._every, self._runs = encoder, every, 0
        self._window = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        encoder.run(self._window)  # the first run takes memory, and longer

    def run(self, batch: Array) -> list[Array]:
        """See `Engine`."""
        if self._runs % self._every == 0:
            wall, cpu = time.perf_counter(), time.process_time()
            self._encoder.run(self._window)
            self.wall.append(time.perf_counter() - wall)
            self.cpu.append(time.process_time() - cpu)
        self._runs += 1
        return self._encoder.run(batch)

    def close(self) -> None:
        """The encoder is its detector's to close."""


def measured(detector: Detector, image: Path) -> dict[str, Any]:
    """Seconds of the image, beside what its windows take where each takes the time that one alone does.

    :param detector: one that looks at windows
    """
    window, picture = window_of(detector), Picture.open(image)
    height, width = picture.height, picture.width
    count = window.count(height, width)
    computed = computed_pixels(window, height, width)
    encoder = Interleaved(detector.encoder, window.side, max(1, count // ALONE))
    timed = Detector(detector.manifest, encoder, detector.head, detector.threshold)
    wall, cpu = time.perf_counter(), time.process_time()
    (result,) = score_items(timed, [Item(image, image.name)])
    wall, cpu = time.perf_counter() - wall - sum(encoder.wall), time.process_time() - cpu - sum(encoder.cpu)
    (score,) = result.scores
    assert score is not None, result.error
    windows = computed * height * width / window.side**2  # of full size
    return {
        "height": height,
        "width": width,
        "window": window.side,
        "windows": count,
        "computed_pixels": computed,
        "seconds": wall,
        "cpu_seconds": cpu,
        "window_s": fmean(encoder.wall),
        "window_cpu_s": fmean(encoder.cpu),
        "ratio": wall / (windows * fmean(encoder.wall)),
        "ratio_of_cpu_time": cpu / (windows * fmean(encoder.cpu)),
        "pixels_mb": picture.nbytes / 1e6,
        "logit": score.logit,
        "engine": encoder.label,
    }


def computed_pixels(window: Window, height: int, width: int) -> float:
    """Of all windows, for each of the image: what the halo costs."""
    pieces = window.pieces(height, width)
    return sum((down.stop - down.start) * (across.stop - across.start) for down, across in pieces) / (height * width)


def window_of(detector: Detector) -> Window:
    """In which the detector looks at an image."""
    views = detector.manifest.views
    assert isinstance(views, WholeImage)
    assert views.window is not None
    return views.window


def main(directory: str, name: str, image: str, side: str = "") -> int:
    """:param name: of the contender
    :param side: of a window; "" is the detector's own
    :returns: the exit code
    """
    (contender,) = (one for one in CONTENDERS if one.name == name)
    with contender.load(Path(directory)) as detector:
        if side:
            window = msgspec.structs.replace(window_of(detector), side=int(side))
            detector.manifest = replace(detector.manifest, views=WholeImage(window=window))
        row = measured(detector, Path(image))
    if STATUS.exists() and (taken := peak(STATUS.read_text(encoding="utf-8"))):
        row["beside_pixels_mb"] = taken / 1e6 - row["pixels_mb"]
    print(json.dumps(row))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
