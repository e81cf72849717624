"""Padding: which pixel of an image a view shows at a place outside the image.

Each function takes a stretch of coordinates along one side and gives the pixel to show at each of them. The CUDA
kernel of `spai_runtime.engines.cuda.crop` computes the same.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Padding = Literal["reflect", "zero", "wrap"]
Indices = NDArray[np.int64]

BLACK = -1  # in place of an index, where no pixel of the image is shown


def reflect(start: int, length: int, side: int) -> Indices:
    """Fold the indices start … start + length − 1 into 0 … side − 1 without repeating the edge (numpy's `reflect`)."""
    if side == 1:
        return np.zeros(length, np.int64)
    period = 2 * (side - 1)
    folded = np.arange(start, start + length) % period
    return np.minimum(folded, period - folded)


def zero(start: int, length: int, side: int) -> Indices:
    """The indices start … start + length − 1, with BLACK for those outside 0 … side − 1 (numpy's `constant` of 0)."""
    indices = np.arange(start, start + length)
    return np.where((indices >= 0) & (indices < side), indices, BLACK)


def wrap(start: int, length: int, side: int) -> Indices:
    """Count the indices start … start + length − 1 from 0 again after side − 1 (numpy's `wrap`)."""
    return np.arange(start, start + length) % side


INDICES: Mapping[Padding, Callable[[int, int, int], Indices]] = {"reflect": reflect, "zero": zero, "wrap": wrap}
