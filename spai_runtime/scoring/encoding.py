"""What one detector makes of one image: its views, and their features as batches bring them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.scoring.image import ImageState, Plane
from spai_runtime.views import Layout


@dataclass(eq=False)
class Encoding:
    """An image on its way through one encoder.

    :param image: which it tells when it needs the pixels no more
    :param plane: that its views are cropped from
    :param width: D, of `features`
    :param features: (V, D) float32, filled batch by batch; `missing` counts the views still to come
    :param error: why it will never have them, in a sentence
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
        """Takes the features (D,) of one view."""
        assert not self.done
        self.features[index] = features
        self.missing -= 1

    def fail(self, error: str) -> None:
        """Gives it up. :param error: one sentence, which its row will say"""
        assert not self.done and error
        self.error = error
        self.release()

    def release(self) -> None:
        """It needs the pixels no more."""
        if not self._released:
            self._released = True
            self.image.release(self.plane)
