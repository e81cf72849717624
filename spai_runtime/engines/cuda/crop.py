"""Cropping views on the GPU: one kernel call for a whole batch, whose views may lie in different images.

Its input is a table with a row for each view. The functions of `spai_runtime.views.padding` decide what a view shows
outside its image, so each view is bit for bit what `Layout.crop` makes of the same image.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.cuda.gpu import failures, import_cupy
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.views import Padding

Row = tuple[int, int, int, int, int, int, int]  # pointer, height, width, top, left, whether flipped, code of PADDINGS

COLUMNS = 7  # of the table
PADDINGS: Mapping[Padding, int] = {"reflect": 0, "zero": 1, "wrap": 2}

_CODES = f"enum {{ {', '.join(f'{name.upper()} = {code}' for name, code in PADDINGS.items())} }};"

# Of code that the driver does not take: CUDA_ERROR_INVALID_IMAGE, _NO_BINARY_FOR_GPU, _INVALID_PTX,
# _JIT_COMPILER_NOT_FOUND, _UNSUPPORTED_PTX_VERSION and _JIT_COMPILATION_DISABLED.
_REFUSED = {200, 209, 218, 221, 222, 223}

# The coordinate of the pixel to show at a coordinate along one side; -1 is black.
_SHOWN = """
__device__ static inline long long shown(long long at, long long length, long long padding) {
    if (at >= 0 && at < length) return at;
    if (padding == ZERO) return -1;
    if (length == 1) return 0;
    const long long period = padding == WRAP ? length : 2 * (length - 1);
    long long folded = at % period;  // of the sign of `at`
    if (folded < 0) folded += period;
    return folded < length ? folded : period - folded;
}
"""

# i counts the bytes of the batch, (bucket, rows, columns, 3).
_CROP = f"""
    const long long channel = i % 3;
    const long long across = i / 3 % columns;
    const long long down = i / (3 * columns) % rows;
    const long long view = i / (3 * columns * rows) * {COLUMNS};
    const unsigned char* pixels = (const unsigned char*)table[view];
    const long long width = table[view + 2];
    const long long column = table[view + 5] ? columns - 1 - across : across;
    const long long y = shown(table[view + 3] + down, table[view + 1], table[view + 6]);
    const long long x = shown(table[view + 4] + column, width, table[view + 6]);
    views = y < 0 || x < 0 ? 0 : pixels[(y * width + x) * 3 + channel];
"""


def crop_kernel() -> Any:
    """The kernel: `kernel(table, rows, columns, views)` fills `views` (bucket, rows, columns, 3) uint8.

    `table` is (bucket, COLUMNS) int64, with a `Row` for each view.

    :raises EngineError: CuPy cannot compile it
    """
    cupy = import_cupy()
    kernel = cupy.ElementwiseKernel(
        "raw int64 table, int64 rows, int64 columns", "uint8 views", _CROP, "crop", preamble=_CODES + _SHOWN
    )
    try:
        _try_out(kernel)
    except Exception as error:  # whatever its compiler or the headers that it looks for come to
        if isinstance(error, (MemoryError, *failures())) and getattr(error, "status", None) not in _REFUSED:
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EngineError(f"CuPy cannot compile for this GPU ({reason}): {install('gpu')}") from error
    return kernel


def fill(table: NDArray[np.int64], rows: Iterable[Row]) -> None:
    """Write the rows of the table (bucket, COLUMNS); the last row is repeated, since a run takes a full bucket."""
    filled = np.array(list(rows), np.int64)
    table[: len(filled)] = filled
    table[len(filled) :] = filled[-1]


def _try_out(kernel: Any) -> None:
    """Compile the kernel by running it on an image of one pixel."""
    cupy = import_cupy()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        pixel, view = cupy.empty((1, 1, 3), np.uint8), cupy.empty((1, 1, 1, 3), np.uint8)
        table = cupy.empty((1, COLUMNS), np.int64)
        table.set(np.array([[pixel.data.ptr, 1, 1, 0, 0, 0, PADDINGS["reflect"]]], np.int64), stream=stream)
        kernel(table, 1, 1, view)
        stream.synchronize()
