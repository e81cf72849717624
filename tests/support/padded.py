"""Padding as numpy does it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.views import Padding

PADDINGS: tuple[Padding, ...] = ("reflect", "zero", "wrap")

_MODES = {"reflect": "reflect", "zero": "constant", "wrap": "wrap"}


def pad(image: NDArray[np.uint8], margins: Sequence[tuple[int, int]], padding: Padding) -> NDArray[np.uint8]:
    """An image (H, W, 3) padded one side at a time; one of one pixel, which numpy cannot reflect, is repeated.

    :param margins: before and after, of the height and of the width
    """
    for axis, margin in enumerate(margins):
        widths = [margin if other == axis else (0, 0) for other in range(3)]
        mode: Any = "edge" if padding == "reflect" and image.shape[axis] == 1 else _MODES[padding]
        image = np.pad(image, widths, mode=mode)
    return image


def padded(image: NDArray[np.uint8], size: int, padding: Padding) -> NDArray[np.uint8]:
    """An image whose sides are at least `size`: half of what is missing before, half after, the odd pixel after."""
    short = [max(0, size - side) for side in image.shape[:2]]
    return pad(image, [(missing // 2, missing - missing // 2) for missing in short], padding)
