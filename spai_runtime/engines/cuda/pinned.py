"""Pinned memory: host memory that a GPU fetches pixels from by itself, while the host does something else."""

import math
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.errors import EngineError

# Larger images lie in ordinary memory: CuPy rounds a block up to a power of two, and keeps it for the next image.
PINNED_BYTES = 128 << 20


def pinned_pixels(gpu: Gpu, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory for pixels, pinned if possible; from other memory, an upload takes some of the host's time.

    :param gpu: the GPU that will fetch them; other GPUs may fetch them too
    """
    if math.prod(shape) <= PINNED_BYTES:
        with suppress(EngineError, MemoryError, RuntimeError), gpu:
            import cupyx  # noqa: PLC0415  as all of CuPy

            pixels: NDArray[np.uint8] = cupyx.empty_pinned(shape, np.uint8)
            return pixels
    return np.empty(shape, np.uint8)
