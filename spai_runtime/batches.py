"""Batches: views of many images gathered into full batches of one encoder."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines import Engine
from spai_runtime.images import Picture
from spai_runtime.views import Layout


@dataclass(eq=False)
class Job:
    """One image on its way through the encoder.

    :param picture: dropped once all its views are cut
    :param width: D, of `features`
    :param features: (V, D) float32, filled batch by batch; `missing` counts the views still to come
    """

    picture: Picture | None
    layout: Layout
    width: int
    features: NDArray[np.float32] = field(init=False, repr=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.layout)
        self.features = np.empty((self.missing, self.width), np.float32)

    @property
    def done(self) -> bool:
        """Whether every view is encoded."""
        return self.missing == 0

    def receive(self, index: int, features: NDArray[np.float32]) -> None:
        """Takes the features (D,) of one view."""
        self.features[index] = features
        self.missing -= 1


class Packer:
    """Cuts views into one reused buffer and runs the encoder whenever it is full.

    :param size: side S of a view
    :param batch_size: views in a full batch
    """

    def __init__(self, encoder: Engine, size: int, batch_size: int) -> None:
        self._encoder = encoder
        self._buffer = np.empty((batch_size, size, size, 3), np.uint8)
        self._slots: list[tuple[Job, int]] = []  # whose view lies at each place of the buffer

    def add(self, job: Job) -> None:
        """Takes all views of a job, whose picture must be decoded; full batches run on the way."""
        assert job.picture is not None
        for index in range(len(job.layout)):
            job.layout.cut(job.picture, index, self._buffer[len(self._slots)])
            self._slots.append((job, index))
            if len(self._slots) == len(self._buffer):
                self.flush()
        job.picture = None

    def flush(self) -> None:
        """Runs what is left."""
        if not self._slots:
            return
        (features,) = self._encoder.run(self._buffer[: len(self._slots)])
        for (job, index), row in zip(self._slots, features, strict=True):
            job.receive(index, row)
        self._slots.clear()
