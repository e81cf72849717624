"""Upstream's numbers and the pixels that they were computed from."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "spai_small.pth"
IMAGES = sorted((FOLDER / "images").glob("*.png"))


@cache
def expected(name: str) -> NDArray[np.float32]:
    """An array of spai_small_expected.npz."""
    with np.load(FOLDER / "spai_small_expected.npz") as arrays:
        return arrays[name]  # type: ignore[no-any-return]


@cache
def golden_views(index: int) -> NDArray[np.uint8]:
    """The views of an image, (V, 224, 224, 3) uint8, by numpy.pad and slicing: no code of the project."""
    with Image.open(IMAGES[index]) as image:
        pixels = np.asarray(image.convert("RGB"))
    missing = [max(0, 224 - side) for side in pixels.shape[:2]]
    for axis, count in enumerate(missing):
        width = [(0, 0)] * 3
        width[axis] = (count // 2, count - count // 2)
        pixels = np.pad(pixels, width, mode="reflect" if pixels.shape[axis] > 1 else "edge")
    bottom, right = pixels.shape[0] - 224, pixels.shape[1] - 224
    corners = [(top, left) for top in range(0, bottom + 1, 224) for left in range(0, right + 1, 224)]
    if expected(f"{index}/five_crop"):
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return np.stack([pixels[top : top + 224, left : left + 224] for top, left in corners])
