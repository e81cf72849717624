"""Augmentation: what training does to the pixels of an image before it looks at them.

All of it runs on the CPU, by NumPy, Pillow's codecs and torchvision's resampling and colours. Every number
comes from a generator of its own, so a view is a function of the pixels, the settings and the seed, and no other random
state is moved.
Axes: V views, S the side of a view, C = 3.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from spai_runtime.images import Picture
from spai_runtime.views import Resize
from spai_train.data import Image
from spai_train.data.augmentation import Augmentation
from spai_train.data.degrade import add_noise, as_uint8, blur, gaussian_kernel, recompress, smooth
from spai_train.data.window import draw_window, plain_crop

# Bytes a pixel beside the decoded ones: RGB of 4 bytes, its array, and a window as large as the image; and what a blur
# of it takes, the planes before and after one axis, padded and weighed.
WORKING_BYTES, PLANES_BYTES = 10, 48

Crop = Callable[[int, int, int, int], Image]  # of top, left, bottom, right


Step = Callable[[Image, np.random.Generator], Image]
Chances = Sequence[tuple[float, Step]]  # of the steps that are on, in their order


class Augment:
    """Draws views of pictures.

    :param size: side S of a view in pixels
    """

    def __init__(self, settings: Augmentation, size: int) -> None:
        self.settings, self.size = settings, size
        self._moves = _on(
            (settings.horizontal_flip, _flip_horizontally),
            (settings.vertical_flip, _flip_vertically),
            (settings.rotation, self._rotate),
        )
        self._losses = _on(
            (settings.blur, self._blur),
            (settings.noise, self._add_noise),
            (settings.jitter, self._jitter),
            (settings.sharpen, self._sharpen),
            (settings.jpeg, self._jpeg),
            (settings.webp, self._webp),
        )

    def __call__(self, picture: Picture, seed: int) -> Image:
        """Draws one view, (S, S, 3). Only the window that is cut out of a large picture is converted.

        :param seed: at least 0
        :raises ImageError: truncated or corrupt data, where the picture was not decoded yet
        """
        return self._draw(picture.load(), picture.crop, seed)

    def views(self, picture: Picture, seeds: Sequence[int]) -> Image:
        """Draws one view for each seed, (V, S, S, 3). The picture is converted once: windows of views overlap."""
        picture.load()
        converted = self.settings.crop != (1, 1) and len(seeds) > 1 and not self._needs_whole
        crop = _cropper(picture.array()) if converted else picture.crop
        views = np.empty((len(seeds), self.size, self.size, 3), np.uint8)
        for view, seed in zip(views, seeds, strict=True):
            view[:] = self._draw(picture, crop, seed)
        return views

    def nbytes(self, picture: Picture) -> int:
        """Memory in bytes that decoding a picture and drawing views of it, one after the other, takes at most."""
        whole = picture.height * picture.width
        cropped = math.prod(self._size(picture))
        drawn = whole + cropped if self.settings.shorter_side else whole
        degraded = {"view": 0, "image": whole, "resized": cropped}[self.settings.degrade] if self._losses else 0
        return max(picture.decoding_nbytes, picture.nbytes + WORKING_BYTES * drawn + PLANES_BYTES * degraded)

    @property
    def _needs_whole(self) -> bool:
        """Whether something is done to the whole image before a window is cut out."""
        return self.settings.shorter_side is not None or self.settings.degrade != "view"

    def _draw(self, picture: Picture, crop: Crop, seed: int) -> Image:
        rng = np.random.default_rng(seed)
        if self._needs_whole:
            picture = self._whole(picture, rng)
            crop = picture.crop
        view = _changed(self._cut(picture, crop, rng), self._moves, rng)
        return _changed(view, self._losses, rng) if self.settings.degrade == "view" else view

    def _whole(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The picture that a window is cut out of."""
        if self.settings.degrade == "image":
            picture = self._degraded(picture, rng)
        if self.settings.shorter_side is not None:
            picture = picture.resized(*self._size(picture), "bilinear")
        return self._degraded(picture, rng) if self.settings.degrade == "resized" else picture

    def _size(self, picture: Picture) -> tuple[int, int]:
        """Height and width of what windows are cut out of."""
        side = self.settings.shorter_side
        return (picture.height, picture.width) if side is None else Resize(side).size(picture.height, picture.width)

    def _degraded(self, picture: Picture, rng: np.random.Generator) -> Picture:
        return Picture.from_array(_changed(picture.array(), self._losses, rng))

    def _cut(self, picture: Picture, crop: Crop, rng: np.random.Generator) -> Image:
        if self.settings.crop == (1, 1):
            return plain_crop(picture, self.size, rng)
        window = draw_window(picture.height, picture.width, self.settings.crop, self.settings.ratio, rng)
        return _as_image(self._resize(_as_tensor(crop(*window))))

    def _resize(self, view: Tensor) -> Tensor:
        """(3, H, W) → (3, S, S)"""
        mode = InterpolationMode(self.settings.interpolation)
        resized: Tensor = F.resize(view, [self.size, self.size], mode, antialias=self.settings.antialias)
        return resized

    def _rotate(self, view: Image, rng: np.random.Generator) -> Image:
        """Turns a view by φ, and enlarges the largest upright square inside, of side S / (|sin φ| + |cos φ|)."""
        angle = rng.uniform(-self.settings.degrees, self.settings.degrees)
        inside = self.size / (abs(math.sin(math.radians(angle))) + abs(math.cos(math.radians(angle))))
        margin = min(math.ceil((self.size - inside) / 2), (self.size - 1) // 2)
        kept = slice(margin, self.size - margin)
        turned: Tensor = F.rotate(_as_tensor(view), angle, InterpolationMode.BILINEAR)
        return _as_image(self._resize(turned[:, kept, kept]))

    def _blur(self, view: Image, rng: np.random.Generator) -> Image:
        size = _whole(self.settings.blur_kernel, rng) | 1
        return blur(view, gaussian_kernel(size, rng.uniform(*self.settings.blur_sigma)))

    def _add_noise(self, view: Image, rng: np.random.Generator) -> Image:
        return add_noise(view, math.sqrt(rng.uniform(*self.settings.noise_variance)), rng)

    def _jitter(self, view: Image, rng: np.random.Generator) -> Image:
        changes = (
            (F.adjust_brightness, self.settings.brightness),
            (F.adjust_contrast, self.settings.contrast),
            (F.adjust_saturation, self.settings.saturation),
            (F.adjust_hue, self.settings.hue),
        )
        pixels = _as_tensor(view)
        for index in rng.permutation(len(changes)):
            change, limits = changes[index]
            pixels = change(pixels, rng.uniform(*limits))
        return _as_image(pixels)

    def _sharpen(self, view: Image, rng: np.random.Generator) -> Image:
        """Applies the filter as a multiple of each pixel less α times the sum of the 3×3 around it."""
        alpha = rng.uniform(*self.settings.sharpen_alpha)
        own = 1 - alpha + alpha * (9 + rng.uniform(*self.settings.sharpen_lightness))
        return as_uint8(np.float32(own) * view - np.float32(alpha) * smooth(view, np.ones(3, np.float32)))

    def _jpeg(self, view: Image, rng: np.random.Generator) -> Image:
        return recompress(view, "JPEG", _whole(self.settings.jpeg_quality, rng))

    def _webp(self, view: Image, rng: np.random.Generator) -> Image:
        return recompress(view, "WEBP", _whole(self.settings.webp_quality, rng))


def _on(*steps: tuple[float, Step]) -> Chances:
    """The steps whose probability is above 0; the others draw no random numbers."""
    return [(probability, step) for probability, step in steps if probability > 0]


def _changed(image: Image, chances: Chances, rng: np.random.Generator) -> Image:
    for probability, step in chances:
        if rng.random() < probability:
            image = step(image, rng)
    return image


def _cropper(pixels: Image) -> Crop:
    """Cuts windows out of pixels (H, W, 3) without a copy."""
    pixels = np.array(pixels)  # what Pillow hands out cannot be written to, of which torch warns
    return lambda top, left, bottom, right: pixels[top:bottom, left:right]


def _flip_horizontally(view: Image, _: np.random.Generator) -> Image:
    return np.ascontiguousarray(view[:, ::-1])


def _flip_vertically(view: Image, _: np.random.Generator) -> Image:
    return np.ascontiguousarray(view[::-1])


def _whole(limits: tuple[int, int], rng: np.random.Generator) -> int:
    """Draws a whole number, both limits included."""
    return int(rng.integers(limits[0], limits[1] + 1))


def _as_tensor(pixels: Image) -> Tensor:
    """(H, W, 3) → (3, H, W); arrays that torch cannot take (read-only, as Pillow's are, or mirrored) are copied."""
    taken = pixels.flags.writeable and min(pixels.strides) > 0
    return torch.from_numpy(pixels if taken else pixels.copy()).permute(2, 0, 1)


def _as_image(pixels: Tensor) -> Image:
    """(3, S, S) → (S, S, 3)"""
    return pixels.permute(1, 2, 0).contiguous().numpy()
