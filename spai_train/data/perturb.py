"""Robustness perturbations: what may happen to an image before it is judged, each at one level.

A level means what upstream's TEST.* setting means (spai/config.py, by way of albumentations 1.4.14 and OpenCV 4.10).
No torch, so that an exported detector is tested without it.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from spai_runtime.errors import UserError
from spai_train.data import Image
from spai_train.data.degrade import add_noise, blur, gaussian_kernel, recompress, rescale

QUALITIES = range(1, 101)


class PerturbationError(UserError):
    """A level that its kind does not have."""


class Kind(StrEnum):
    """What is done to an image; the value is the word that a user writes."""

    NONE = "none"
    JPEG = "jpeg"
    WEBP = "webp"
    BLUR = "blur"
    NOISE = "noise"
    SCALE = "scale"

    @property
    def levels(self) -> str:
        """What a level of this kind is, in words."""
        match self:
            case Kind.JPEG | Kind.WEBP:
                return "a whole number from 1 to 100, the quality"
            case Kind.BLUR:
                return "an odd number, the kernel's side in pixels"
            case Kind.NOISE:
                return "at least 0, the standard deviation in grey levels of 255"
            case Kind.SCALE:
                return "above 0, the factor of both sides"
            case Kind.NONE:
                return "0"

    def has(self, level: float) -> bool:
        """Whether the kind has this level."""
        match self:
            case Kind.JPEG | Kind.WEBP:
                return level in QUALITIES
            case Kind.BLUR:
                return level > 0 and level % 2 == 1
            case Kind.NOISE:
                return math.isfinite(level) and level >= 0
            case Kind.SCALE:
                return math.isfinite(level) and level > 0
            case Kind.NONE:
                return level == 0


@dataclass(frozen=True)
class Perturbation:
    """One kind at one level.

    :param level: JPEG and WebP: quality, 1–100. Blur: side of the kernel in pixels, odd. Noise: standard deviation on
        the scale of 0–255. Scale: the factor of both sides
    :raises PerturbationError: the kind does not have this level
    """

    kind: Kind
    level: float = 0

    def __post_init__(self) -> None:
        if not self.kind.has(self.level):
            raise PerturbationError(
                f"{self.kind} {self.level:g} is not a perturbation: the level is {self.kind.levels}"
            )

    def __str__(self) -> str:
        return str(self.kind) if self.kind is Kind.NONE else f"{self.kind} {self.level:g}"

    def apply(self, image: Image, seed: int = 0) -> Image:
        """:param image: (H, W, 3) RGB, left as it is
        :param seed: decides the noise; at least 0
        :returns: (H, W, 3), of other sides where the kind is a scale; the image itself where the kind is none
        :raises ImageError: the image is larger than a JPEG or a WebP can be
        """
        match self.kind:
            case Kind.JPEG:
                return recompress(image, "JPEG", int(self.level))
            case Kind.WEBP:
                return recompress(image, "WEBP", int(self.level))
            case Kind.BLUR:
                return blur(image, gaussian_kernel(int(self.level)))
            case Kind.NOISE:
                return add_noise(image, self.level, np.random.default_rng(seed))
            case Kind.SCALE:
                return rescale(image, self.level)
            case Kind.NONE:
                return image


NONE = Perturbation(Kind.NONE)
