"""Pinned memory: host memory that a GPU fetches pixels from by itself, while the host does something else."""

import math

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.cuda.gpu import import_cupy

# Larger images lie in ordinary memory: CuPy rounds a block up to a power of two, and keeps it for the next image.
PINNED_BYTES = 128 << 20


def pinned_pixels(index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory for pixels, pinned where that can be had; where it cannot, an upload takes a moment of the host's time.

    :param index: of the GPU that shall fetch them; others may, too
    """
    if math.prod(shape) <= PINNED_BYTES:
        try:
            import cupyx  # noqa: PLC0415  as all of CuPy

            with import_cupy().cuda.Device(index):
                pixels: NDArray[np.uint8] = cupyx.empty_pinned(shape, np.uint8)
                return pixels
        except (MemoryError, RuntimeError):  # CuPy's errors are RuntimeErrors
            pass
    return np.empty(shape, np.uint8)
