"""Cutting views on the GPU: one kernel for a whole batch, whose views lie in any number of images.

Its input is a table with a row (pointer, height, width, top, left) a view. Coordinates outside an image are reflected
as `spai_runtime.views.reflect` does, so that a view is bit for bit what `Layout.crop` makes of the same image.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.cuda.gpu import import_cupy
from spai_runtime.errors import EngineError

COLUMNS = 5  # of the table

_REFLECT = """
__device__ static inline long long reflect(long long at, long long length) {
    if (length == 1) return 0;
    const long long period = 2 * (length - 1);
    long long folded = at % period;  // of the sign of `at`
    if (folded < 0) folded += period;
    return folded < period - folded ? folded : period - folded;
}
"""

# i counts the bytes of the batch, (bucket, side, side, 3).
_CUT = """
    const long long channel = i % 3;
    const long long column = i / 3 % side;
    const long long row = i / (3 * side) % side;
    const long long view = i / (3 * side * side) * 5;
    const unsigned char* pixels = (const unsigned char*)table[view];
    const long long y = reflect(table[view + 3] + row, table[view + 1]);
    const long long x = reflect(table[view + 4] + column, table[view + 2]);
    views = pixels[(y * table[view + 2] + x) * 3 + channel];
"""


def crop_kernel() -> Any:
    """`kernel(table, side, views)`: fills `views` (bucket, side, side, 3) uint8 from `table` (bucket, 5) int64.

    :raises EngineError: CuPy cannot compile it
    """
    cupy = import_cupy()
    kernel = cupy.ElementwiseKernel("raw int64 table, int64 side", "uint8 views", _CUT, "cut", preamble=_REFLECT)
    try:
        _try_out(kernel)
    except (cupy.cuda.runtime.CUDARuntimeError, MemoryError):
        raise
    except Exception as error:  # whatever its compiler or the headers that it looks for come to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EngineError(f"CuPy cannot compile for this GPU ({reason}): pip install 'spai-toolkit[gpu]'") from error
    return kernel


def fill(table: NDArray[np.int64], cuts: Iterable[tuple[int, int, int, int, int]]) -> None:
    """Writes the rows of the table (bucket, 5); the last is repeated, since a run is always of the full bucket."""
    rows = np.array(list(cuts), np.int64)
    table[: len(rows)] = rows
    table[len(rows) :] = rows[-1]


def _try_out(kernel: Any) -> None:
    """Compiles it, on an image of one pixel."""
    cupy = import_cupy()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        pixel, view = cupy.empty((1, 1, 3), np.uint8), cupy.empty((1, 1, 1, 3), np.uint8)
        table = cupy.empty((1, COLUMNS), np.int64)
        table.set(np.array([[pixel.data.ptr, 1, 1, 0, 0]], np.int64), stream=stream)
        kernel(table, 1, view)
        stream.synchronize()
