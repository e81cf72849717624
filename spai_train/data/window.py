"""The window of an image that a view is cut out of."""

import math

import numpy as np

from spai_runtime.images import Picture
from spai_runtime.views import Layout
from spai_train.data import Image

_TRIES = 10  # torchvision's and albumentations'


def draw_window(
    height: int, width: int, share: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """The window of a random resized crop, as torchvision and albumentations draw it.

    :param height, width: the image's sides in pixels
    :param share: lowest and highest share of the image's area, drawn evenly
    :param ratio: lowest and highest width over height, drawn evenly in the logarithm
    :returns: top, left, bottom, right. An image too narrow for all of ten draws gives the largest window in its
        middle that has an allowed ratio
    """
    low, high = np.log(ratio)
    for _ in range(_TRIES):
        area, stretch = height * width * rng.uniform(*share), math.exp(rng.uniform(low, high))
        rows, columns = round(math.sqrt(area / stretch)), round(math.sqrt(area * stretch))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return top, left, top + rows, left + columns
    rows, columns = min(height, max(1, round(width / ratio[0]))), min(width, max(1, round(height * ratio[1])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return top, left, top + rows, left + columns


def plain_crop(picture: Picture, size: int, rng: np.random.Generator) -> Image:
    """A window of unchanged pixels, (S, S, 3), from anywhere in the image; a shorter side is padded as in SPAI."""
    corner = [_start(side, size, rng) for side in (picture.height, picture.width)]
    view = np.empty((size, size, 3), np.uint8)
    Layout(picture.height, picture.width, (size, size), np.array([corner]), grid=None).crop(picture, 0, view)
    return view


def _start(side: int, size: int, rng: np.random.Generator) -> int:
    """The first pixel of a stretch of `size`; negative where half of the padding comes before the image."""
    return int(rng.integers(side - size + 1)) if side >= size else -((size - side) // 2)
