"""Modes: how Pillow stores pixels, and how each mode becomes 8-bit RGB."""

import warnings
from typing import Literal

import numpy as np
from PIL import Image

from spai_runtime.errors import ImageError

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # others take 4 in Pillow


def check(mode: str) -> None:
    """Check a mode. :raises ImageError: it has no defined range"""
    if mode in ("I", "F", "LAB", "La", "RGBa"):
        raise ImageError(f"pixels of mode {mode} have no defined 8-bit range; convert the file to 8 or 16 bits RGB")


def bytes_per_pixel(mode: str) -> int:
    """The number of bytes in which Pillow stores a pixel."""
    return _BYTES_PER_PIXEL.get(mode, 4)


def plain(mode: str) -> Literal["L", "RGB"]:
    """The smaller of the two modes that holds the same pixels as 8-bit RGB."""
    return "L" if mode in ("1", "L") or mode.startswith("I;16") else "RGB"


def as_plain(image: Image.Image) -> Image.Image:
    """Convert an image to the mode that `plain` names."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # the high byte, as Pillow reads 16-bit RGB
    wanted = plain(image.mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Palette images with Transparency": alpha is dropped on purpose
        return image if image.mode == wanted else image.convert(wanted)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB; an RGB image is returned as it is."""
    found = as_plain(image)
    return found if found.mode == "RGB" else found.convert("RGB")
