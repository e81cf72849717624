"""Augmentation: what training does to the pixels of an image before it looks at them.

On the CPU, by NumPy, Pillow's codecs and torchvision's resampling and colours. Every number is drawn from a generator
of its own, so a view is a function of the pixels, the settings and the seed, and no other random state is moved.
Axes: V views, S the side of a view, C = 3.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from spai_runtime.images import Picture
from spai_train.data import Image
from spai_train.data.degrade import add_noise, as_uint8, blur, gaussian_kernel, recompress, smooth
from spai_train.data.window import draw_window, plain_crop

Probability = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Factor = Annotated[float, Meta(ge=0)]
Quality = Annotated[int, Meta(ge=1, le=100)]
Hue = Annotated[float, Meta(ge=-0.5, le=0.5)]
Kernel = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Augmentation:
    """How views are drawn. The defaults are SPAI's published fine-tuning (upstream spai/config.py, AUG.*).

    Pairs are the lowest and the highest value; what is drawn lies between them, evenly.

    :param crop: share of the image's area that is cut out and resized, in (0, 1] (MIN_CROP_AREA, MAX_CROP_AREA);
        (1, 1) cuts S×S pixels without resizing, and pads a shorter side by reflection
    :param ratio: width over height of what is cut out, drawn evenly in its logarithm (albumentations' default)
    :param interpolation: of every resize; rotation is bilinear in any case
    :param antialias: whether a resize to fewer pixels averages over what it leaves out, as Pillow's does; OpenCV's
        does not
    :param horizontal_flip, vertical_flip: probabilities
    :param rotation: probability (ROTATION_PROB) of turning, cutting out the largest square that shows no border, and
        resizing that to S×S
    :param degrees: largest angle, either way (ROTATION_DEGREES)
    :param blur: probability of a Gaussian blur (GAUSSIAN_BLUR_PROB)
    :param blur_kernel: kernel size in pixels, odd; an even draw counts as the next odd size (GAUSSIAN_BLUR_LIMIT)
    :param blur_sigma: standard deviation of the kernel in pixels (GAUSSIAN_BLUR_SIGMA)
    :param noise: probability of Gaussian noise, independent in each channel (GAUSSIAN_NOISE_PROB)
    :param noise_variance: on the scale of 0–255 (albumentations' default)
    :param jitter: probability of changing brightness, contrast, saturation and hue, in any order (COLOR_JITTER)
    :param brightness, contrast, saturation: factors, 1 leaves the image as it is (COLOR_JITTER_*_RANGE)
    :param hue: turn of the colour circle, in [−0.5, 0.5] (COLOR_JITTER_HUE_RANGE)
    :param sharpen: probability (SHARPEN_PROB) of a 3×3 filter, (1 − α)·identity + α·effect, where effect is
        8 + lightness in the centre and −1 around it
    :param sharpen_alpha: α, in [0, 1] (SHARPEN_ALPHA_RANGE)
    :param sharpen_lightness: brightness of the effect (SHARPEN_LIGHTNESS_RANGE)
    :param jpeg, webp: probabilities of a compression (JPEG_COMPRESSION_PROB, WEBP_COMPRESSION_PROB)
    :param jpeg_quality, webp_quality: 1–100 (JPEG_MIN_QUALITY, JPEG_MAX_QUALITY, and the same of WEBP)
    :raises ValueError: a pair whose first value is above its second, or an even kernel
    """

    crop: tuple[Share, Share] = (0.2, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = False
    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    rotation: Probability = 0.5
    degrees: Annotated[float, Meta(ge=0, le=180)] = 90.0
    blur: Probability = 0.5
    blur_kernel: tuple[Kernel, Kernel] = (3, 9)
    blur_sigma: tuple[Positive, Positive] = (0.01, 0.5)
    noise: Probability = 0.5
    noise_variance: tuple[Factor, Factor] = (10.0, 50.0)
    jitter: Probability = 0.0
    brightness: tuple[Factor, Factor] = (0.8, 1.2)
    contrast: tuple[Factor, Factor] = (0.8, 1.2)
    saturation: tuple[Factor, Factor] = (0.8, 1.2)
    hue: tuple[Hue, Hue] = (-0.1, 0.1)
    sharpen: Probability = 0.0
    sharpen_alpha: tuple[Probability, Probability] = (0.01, 0.4)
    sharpen_lightness: tuple[Factor, Factor] = (0.95, 1.0)
    jpeg: Probability = 0.5
    jpeg_quality: tuple[Quality, Quality] = (50, 100)
    webp: Probability = 0.0
    webp_quality: tuple[Quality, Quality] = (50, 100)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{field.name} goes from {value[0]} to {value[1]}; put the lower value first")
        if any(size % 2 == 0 for size in self.blur_kernel):
            raise ValueError(f"blur_kernel goes from {self.blur_kernel[0]} to {self.blur_kernel[1]}; both must be odd")


FINETUNE = Augmentation()

PLAIN = Augmentation(  # somewhere in the image, its pixels as they are
    crop=(1.0, 1.0), horizontal_flip=0.0, vertical_flip=0.0, rotation=0.0, blur=0.0, noise=0.0, jpeg=0.0
)

# Masked frequency modelling: torchvision's random resized crop and flip of a Pillow image (upstream
# spai/data/data_mfm.py, `MFMTransform`).
PRETRAIN = replace(PLAIN, crop=(0.2, 1.0), interpolation="bicubic", antialias=True, horizontal_flip=0.5)


Crop = Callable[[int, int, int, int], Image]  # of top, left, bottom, right


class Augment:
    """Draws views of pictures.

    :param size: side S of a view in pixels
    """

    def __init__(self, settings: Augmentation, size: int) -> None:
        self.settings, self.size = settings, size
        steps: tuple[tuple[float, Callable[[Image, np.random.Generator], Image]], ...] = (
            (settings.horizontal_flip, _flip_horizontally),
            (settings.vertical_flip, _flip_vertically),
            (settings.rotation, self._rotate),
            (settings.blur, self._blur),
            (settings.noise, self._add_noise),
            (settings.jitter, self._jitter),
            (settings.sharpen, self._sharpen),
            (settings.jpeg, self._jpeg),
            (settings.webp, self._webp),
        )
        self._steps = [(probability, step) for probability, step in steps if probability > 0]

    def __call__(self, picture: Picture, seed: int) -> Image:
        """One view, (S, S, 3). Of a large picture, only the window that is cut out is converted.

        :param seed: at least 0
        :raises ImageError: truncated or corrupt data, where the picture was not decoded yet
        """
        return self._draw(picture.load(), picture.crop, seed)

    def views(self, picture: Picture, seeds: Sequence[int]) -> Image:
        """One view a seed, (V, S, S, 3). The picture is converted once: windows of several views overlap."""
        picture.load()
        converted = self.settings.crop != (1, 1) and len(seeds) > 1
        crop = _cropper(picture.array()) if converted else picture.crop
        views = np.empty((len(seeds), self.size, self.size, 3), np.uint8)
        for view, seed in zip(views, seeds, strict=True):
            view[:] = self._draw(picture, crop, seed)
        return views

    def _draw(self, picture: Picture, crop: Crop, seed: int) -> Image:
        rng = np.random.default_rng(seed)
        view = self._cut(picture, crop, rng)
        for probability, step in self._steps:
            if rng.random() < probability:
                view = step(view, rng)
        return view

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
        """The largest upright square inside a square of side S that is turned by φ has side S / (|sin φ| + |cos φ|)."""
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
        """The filter as a multiple of each pixel less α times the sum of the 3×3 around it."""
        alpha = rng.uniform(*self.settings.sharpen_alpha)
        own = 1 - alpha + alpha * (9 + rng.uniform(*self.settings.sharpen_lightness))
        return as_uint8(np.float32(own) * view - np.float32(alpha) * smooth(view, np.ones(3, np.float32)))

    def _jpeg(self, view: Image, rng: np.random.Generator) -> Image:
        return recompress(view, "JPEG", _whole(self.settings.jpeg_quality, rng))

    def _webp(self, view: Image, rng: np.random.Generator) -> Image:
        return recompress(view, "WEBP", _whole(self.settings.webp_quality, rng))


def _cropper(pixels: Image) -> Crop:
    """Cuts windows out of pixels (H, W, 3) without a copy."""
    pixels = np.array(pixels)  # what Pillow hands out cannot be written to, of which torch warns
    return lambda top, left, bottom, right: pixels[top:bottom, left:right]


def _flip_horizontally(view: Image, _: np.random.Generator) -> Image:
    return np.ascontiguousarray(view[:, ::-1])


def _flip_vertically(view: Image, _: np.random.Generator) -> Image:
    return np.ascontiguousarray(view[::-1])


def _whole(limits: tuple[int, int], rng: np.random.Generator) -> int:
    """A whole number, both limits included."""
    return int(rng.integers(limits[0], limits[1] + 1))


def _as_tensor(pixels: Image) -> Tensor:
    """(H, W, 3) → (3, H, W); a copy of what torch cannot take: arrays that are read-only, as Pillow's, or mirrored."""
    taken = pixels.flags.writeable and min(pixels.strides) > 0
    return torch.from_numpy(pixels if taken else pixels.copy()).permute(2, 0, 1)


def _as_image(pixels: Tensor) -> Image:
    """(3, S, S) → (S, S, 3)"""
    return pixels.permute(1, 2, 0).contiguous().numpy()
