"""Encodings: the views of one image for one detector, and their features as batches bring them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.scoring.image import ImageState, Plane
from spai_runtime.views import Layout


@dataclass(eq=False)
class Encoding:
    """An image on its way through one encoder.

    :param image: the image; it is told when its pixels are no longer needed
    :param plane: the plane that its views are cropped from
    :param width: the width D of `features`
    :param features: (V, D) float32, filled batch by batch; `missing` counts the views that are not encoded yet
    :param error: the reason why it will never have all of them, in one sentence
    """

    image: ImageState
    plane: Plane
    layout: Layout
    width: int
    features: NDArray[np.float32] = field(init=False, repr=False)
    missing: int = field(init=False)
    error: str = field(init=False, default="")
    _released: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.missing = len(self.layout)
        self.features = np.empty((self.missing, self.width), np.float32)

    @property
    def done(self) -> bool:
        """Whether every view is encoded, or never will be."""
        return self.missing == 0 or bool(self.error)

    def receive(self, index: int, features: NDArray[np.float32]) -> None:
        """Take the features (D,) of one view."""
        assert not self.done
        self.features[index] = features
        self.missing -= 1

    def fail(self, error: str) -> None:
        """Give up. :param error: one sentence, for the image's row"""
        assert not self.done and error
        self.error = error
        self.release()

    def release(self) -> None:
        """Tell the image that this encoding no longer needs the pixels."""
        if not self._released:
            self._released = True
            self.image.release(self.plane)
