"""The speed of an encoder here: a quick measurement, and what was found before, in the user's cache."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import numpy as np

from spai_runtime.cores import cores
from spai_runtime.engines.base import Engine
from spai_runtime.files import kept
from spai_runtime.manifest import Artifact, Manifest

SECONDS = 1.0  # that a measurement takes at least, after a batch that does not count
_KIND = "speeds"
WHOLE_IMAGE = 512  # pixels a side of a view where every image has its own size


def views_per_second(encoder: Engine, manifest: Manifest) -> float:
    """Measure the speed quickly, on noise, with the engine's best batch size and as many batches at a time as it runs.

    :param manifest: says the shape of a view
    """
    height, width = (side or WHOLE_IMAGE for side in manifest.views.shape)
    count = encoder.batch_size if None not in manifest.views.shape else 1
    batches = encoder.streams * [np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)]
    with ThreadPoolExecutor(encoder.streams) as pool:
        list(pool.map(encoder.run, batches))
        started, done = time.perf_counter(), 0
        while not done or time.perf_counter() - started < SECONDS:
            done += count * len(list(pool.map(encoder.run, batches)))
        return done / (time.perf_counter() - started)


def found(artifact: Artifact, engine: str) -> float | None:
    """The views a second that were measured before with as many cores as now.

    :param engine: label of what runs its encoder, and the precision that it computes in
    :returns: None if nothing was measured, or if it cannot be read any more
    """
    measured = kept.read(_KIND, _belongs_to(artifact, engine), _Measured)
    return measured.views_per_second if measured else None


def keep(artifact: Artifact, engine: str, speed: float) -> None:
    """Keep the speed; if the cache cannot be written, it is measured again next time."""
    with suppress(OSError, RuntimeError):
        kept.write(_KIND, _belongs_to(artifact, engine), _Measured(speed))


def _belongs_to(artifact: Artifact, engine: str) -> tuple[str, ...]:
    return artifact.encoder.sha256, engine, str(cores())


class _Measured(msgspec.Struct):
    views_per_second: float
