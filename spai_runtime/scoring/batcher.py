"""Batches: views of many images gathered into full batches of one encoder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spai_runtime.closing import Closing
from spai_runtime.engines import DeviceImage, Engine
from spai_runtime.images import Picture
from spai_runtime.views import Layout


def _nothing() -> None:
    """What follows from dropping pixels that nobody counts."""


@dataclass(eq=False)
class Job:
    """One image on its way through the encoder.

    :param picture: dropped once all its views are cut, or its pixels lie elsewhere
    :param width: D, of `features`
    :param features: (V, D) float32, filled batch by batch; `missing` counts the views still to come
    :param error: why it will never have them, in a sentence
    :param pixels: (H, W, 3) uint8, where a GPU fetches them from
    :param images: the image on each GPU that needs it, by the GPU's name
    :param dropped: called when its pixels are no longer held
    """

    picture: Picture | None
    layout: Layout
    width: int
    features: NDArray[np.float32] = field(init=False, repr=False)
    missing: int = field(init=False)
    error: str = field(init=False, default="")
    pixels: NDArray[np.uint8] | None = field(init=False, default=None, repr=False)
    images: dict[str, DeviceImage] = field(init=False, default_factory=dict, repr=False)
    dropped: Callable[[], None] = field(init=False, default_factory=lambda: _nothing, repr=False)

    def __post_init__(self) -> None:
        self.missing = len(self.layout)
        self.features = np.empty((self.missing, self.width), np.float32)

    @property
    def done(self) -> bool:
        """Whether every view is encoded, or never will be."""
        return self.missing == 0 or bool(self.error)

    def receive(self, index: int, features: NDArray[np.float32]) -> None:
        """Takes the features (D,) of one view."""
        assert not self.done
        self.features[index] = features
        self.missing -= 1

    def fail(self, error: str) -> None:
        """Gives it up. :param error: one sentence, which its row will say"""
        assert not self.done and error
        self.error = error
        self.drop()

    def drop(self) -> None:
        """Lets go of its pixels, wherever they lie."""
        self.picture = self.pixels = None
        self.images.clear()
        dropped, self.dropped = self.dropped, _nothing
        dropped()


class Batcher(Closing, Protocol):
    """Gathers views of many jobs into batches. Use it in a `with`, or `close` it.

    One thread adds jobs; those that it adds may have been prepared in others, ahead of it.
    """

    def ready(self) -> None:
        """Makes what batches will need, for who has many images; else it is made when it is needed.

        :raises EngineError: the encoder takes no batches of that size
        """

    def cost(self, job: Job) -> int:
        """Bytes of pixels that a job takes at most while it is prepared; once it is, those that it holds."""

    def prepare(self, job: Job) -> None:
        """Decodes its image. :raises ImageError: truncated or corrupt data"""

    def add(self, job: Job) -> None:
        """Takes all views of a job that is prepared; full batches run on the way."""

    def advance(self) -> bool:
        """Takes the features of the batch that runs longest, waiting for them; False where none runs."""

    def flush(self) -> None:
        """Runs what is left: every job that was added is done."""

    def close(self) -> None:
        """Lets go of what it holds, jobs that are not done included."""


class HostBatcher(Batcher):
    """Cuts views into one reused buffer and runs the encoder whenever it is full.

    :param size: side S of a view
    :param batch_size: views in a full batch
    """

    def __init__(self, encoder: Engine, size: int, batch_size: int) -> None:
        self._encoder = encoder
        self._buffer = np.empty((batch_size, size, size, 3), np.uint8)
        self._views: list[tuple[Job, int]] = []  # whose view lies at each place of the buffer

    def ready(self) -> None:
        """See `Batcher`: it needs nothing more."""

    def cost(self, job: Job) -> int:
        """See `Batcher`."""
        return job.picture.nbytes if job.picture else 0

    def prepare(self, job: Job) -> None:
        """See `Batcher`; the picture stays in the mode that it was decoded to."""
        assert job.picture is not None
        job.picture.load()

    def add(self, job: Job) -> None:
        """See `Batcher`; its pixels are not needed afterwards, though some of its views may wait in the buffer."""
        assert job.picture is not None
        for index in range(len(job.layout)):
            job.layout.crop(job.picture, index, self._buffer[len(self._views)])
            self._views.append((job, index))
            if len(self._views) == len(self._buffer):
                self.flush()
        job.drop()

    def advance(self) -> bool:
        """See `Batcher`: a batch has ended when `add` returns."""
        return False

    def flush(self) -> None:
        """See `Batcher`."""
        if not self._views:
            return
        (features,) = self._encoder.run(self._buffer[: len(self._views)])
        for (job, index), row in zip(self._views, features, strict=True):
            job.receive(index, row)
        self._views.clear()

    def close(self) -> None:
        """See `Batcher`; it holds no pixels but those in its buffer."""
