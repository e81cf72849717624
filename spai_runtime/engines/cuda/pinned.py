"""Pinned memory: host memory that a GPU fetches pixels from by itself, while the host does something else."""

import math

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.devices import gpus

# Larger images lie in ordinary memory: CuPy rounds a block up to a power of two, and keeps it for the next image.
PINNED_BYTES = 128 << 20


def pinned_pixels(device: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory for pixels, pinned where that can be had; where it cannot, an upload takes a moment of the host's time.

    :param device: that shall fetch them, `cuda:<index>`; others may, too
    """
    if math.prod(shape) <= PINNED_BYTES:
        try:
            import cupy  # noqa: PLC0415  comes with the engines that run on a GPU
            import cupyx  # noqa: PLC0415

            with cupy.cuda.Device(*gpus(device)):
                pixels: NDArray[np.uint8] = cupyx.empty_pinned(shape, np.uint8)
                return pixels
        except (ImportError, MemoryError, RuntimeError):  # CuPy's errors are RuntimeErrors
            pass
    return np.empty(shape, np.uint8)
