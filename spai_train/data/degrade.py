"""Ways in which an image loses quality: lossy compression, blur, noise, rescaling. NumPy and Pillow do all of it.

Axes: H W pixels, C = 3. An Image is uint8; planes are what it is before rounding, float32 on the same scale.
"""

import io
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from spai_runtime.errors import ImageError
from spai_train.data import Image, Pixels

Codec = Literal["JPEG", "WEBP"]

# OpenCV's Gaussian kernels where a size and no sigma is given, times 256, from the centre outwards
# (modules/imgproc/src/smooth.dispatch.cpp, `small_gaussian_tab`).
_SMALL_GAUSSIANS = {1: (256,), 3: (128, 64), 5: (96, 64, 16), 7: (72, 56, 28, 8), 9: (60, 51, 30, 13, 4)}


def recompress(image: Image, codec: Codec, quality: int) -> Image:
    """Writes and reads a lossy file in memory, with the codec's defaults (4:2:0 chroma).

    Upstream compresses the colours in reverse order, since albumentations hands RGB to OpenCV, which takes BGR. Here
    the order is right, as in files that people share.

    :param quality: 1–100
    :raises ImageError: the image is larger than the format can hold
    """
    file = io.BytesIO()
    try:
        PIL.Image.fromarray(image).save(file, codec, quality=quality)
    except (OSError, ValueError) as error:
        height, width = image.shape[:2]
        raise ImageError(f"{width}×{height} pixels cannot be written as {codec}: {error}") from error
    return np.array(PIL.Image.open(file, formats=[codec]).convert("RGB"))


def gaussian_kernel(size: int, sigma: float | None = None) -> NDArray[np.float32]:
    """:param size: in pixels, odd
    :param sigma: in pixels; None takes OpenCV's for the size: a table up to 9 pixels, then 0.3·((size − 1)/2 − 1) + 0.8
    :returns: (size,), with sum 1
    """
    distance = np.abs(np.arange(size) - size // 2)
    if sigma is None and size in _SMALL_GAUSSIANS:
        weights = np.array(_SMALL_GAUSSIANS[size])[distance]
    else:
        weights = np.exp(-((distance / (sigma or 0.3 * ((size - 1) / 2 - 1) + 0.8)) ** 2) / 2)
    kernel: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kernel


def blur(image: Image, kernel: NDArray[np.float32]) -> Image:
    """Filters columns and rows with a kernel of odd size."""
    return as_uint8(smooth(image, kernel))


def smooth(image: Image, kernel: NDArray[np.float32]) -> Pixels:
    """The blurred planes; edges are reflected without repeating the edge pixel, as OpenCV does."""
    return _filtered(_filtered(image, kernel, axis=0), kernel, axis=1)


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Adds Gaussian noise, independent in every pixel and channel; each of its values is cut to a whole grey level.

    It is cut towards zero, as in the albumentations that upstream pins (1.4.14): the power is about σ² − 0.8·σ + ⅓, and
    the mean stays zero.

    :param sigma: standard deviation before the cut, in grey levels
    """
    planes = rng.standard_normal(image.shape, np.float32)
    planes *= sigma
    np.trunc(planes, out=planes)
    planes += image
    return as_uint8(planes)


def rescale(image: Image, factor: float) -> Image:
    """Multiplies both sides by a factor; the new sides are cut to whole pixels, at least 1."""
    height, width = (max(1, int(side * factor)) for side in image.shape[:2])
    return resize(image, height, width)


def resize(image: Image, height: int, width: int) -> Image:
    """Resizes bilinearly, without antialiasing (OpenCV's INTER_LINEAR)."""
    return as_uint8(_interpolated(_interpolated(image, height, axis=0), width, axis=1))


def as_uint8(planes: Pixels) -> Image:
    """Rounds (halves up, as OpenCV does) and clips to 0–255; this overwrites the planes."""
    planes += 0.5
    return np.clip(planes, 0, 255, out=planes).astype(np.uint8)


def _filtered(planes: Image | Pixels, kernel: NDArray[np.float32], axis: int) -> Pixels:
    length, reach = planes.shape[axis], len(kernel) // 2
    padded = np.pad(planes, [(reach, reach) if axis == other else (0, 0) for other in range(3)], "reflect")
    total = np.zeros(planes.shape, np.float32)
    for offset, weight in enumerate(kernel):
        total += weight * padded[(slice(None),) * axis + (slice(offset, offset + length),)]
    return total


def _interpolated(planes: Image | Pixels, length: int, axis: int) -> Pixels:
    """Resamples one axis between the centres of its pixels; the outermost pixels repeat beyond the edge."""
    side = planes.shape[axis]
    position = np.clip((np.arange(length) + 0.5) * (side / length) - 0.5, 0, side - 1)
    before = position.astype(np.int64)
    after = np.minimum(before + 1, side - 1)
    share = (position - before).astype(np.float32).reshape([-1 if axis == other else 1 for other in range(3)])
    between: Pixels = planes.take(before, axis) * (1 - share) + planes.take(after, axis) * share
    return between
