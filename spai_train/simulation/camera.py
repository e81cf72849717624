"""A camera: lens blur, Bayer mosaic, sensor noise, demosaicing, denoising, tone curve, sharpening, 8 bits.

Real images owe their high frequencies to this chain; a generator owes them to its up-samplers.
Axes: H W pixels, C = 3 channels R, G, B; planes are torch (1, C, H, W) float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spai_train.data import Image, Pixels

GAMMA = 2.2

# Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color images"
# (ICASSP 2004), figure 2, times 8: green at red or blue; red at green in a red row; the same in a red column;
# red at blue.
_MALVAR = torch.tensor(
    [
        [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]],
        [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
        [[0, 0, -1, 0, 0], [0, -1, 4, -1, 0], [0.5, 0, 5, 0, 0.5], [0, -1, 4, -1, 0], [0, 0, -1, 0, 0]],
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]],
    ]
)[:, None].div(8)  # (4, 1, 5, 5)

_BILINEAR = torch.tensor(
    [
        [[0, 1, 0], [1, 0, 1], [0, 1, 0]],
        [[0, 0, 0], [2, 0, 2], [0, 0, 0]],
        [[0, 2, 0], [0, 0, 0], [0, 2, 0]],
        [[1, 0, 1], [0, 0, 0], [1, 0, 1]],
    ]
)[:, None].div(4)  # (4, 1, 3, 3), in the order of _MALVAR


@dataclass(frozen=True)
class Camera:
    """One camera and its settings.

    :param blur: standard deviation of the lens's point spread, in pixels
    :param phase: row and column of the mosaic's first red pixel, each 0 or 1
    :param shot: variance of the noise per unit of linear light
    :param read: standard deviation of the noise in the dark, linear light
    :param demosaic: "malvar" or "bilinear"
    :param denoise: details below this are shrunk away, in gamma-encoded light
    :param sharpen: share of the unsharp mask that is added
    """

    blur: float
    phase: tuple[int, int]
    shot: float
    read: float
    demosaic: str
    denoise: float
    sharpen: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Camera":
        """Draws a camera: its pictures lie anywhere between clean and noisy, soft and sharpened."""
        return cls(
            blur=rng.uniform(0.3, 0.8),
            phase=(int(rng.integers(2)), int(rng.integers(2))),
            shot=float(np.exp(rng.uniform(np.log(2e-5), np.log(8e-4)))),
            read=float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
            demosaic=str(rng.choice(("malvar", "bilinear"))),
            denoise=rng.uniform(0, 0.02),
            sharpen=rng.uniform(0, 0.8),
        )

    def photograph(self, scene: Pixels, rng: np.random.Generator) -> Image:
        """:param scene: (H, W, 3) linear light in [0, 1]
        :returns: (H, W, 3) uint8, gamma-encoded
        """
        light = torch.from_numpy(scene).permute(2, 0, 1)[None]  # (1, C, H, W)
        raw = self._expose(mosaic(gaussian(light, self.blur), self.phase), rng)
        picture = demosaic(raw, self.phase, self.demosaic).clamp(0, 1) ** (1 / GAMMA)
        picture = unsharp(shrink_details(picture, self.denoise), self.sharpen).clamp(0, 1)
        return picture[0].permute(1, 2, 0).mul(255).round().byte().numpy()

    def _expose(self, raw: Tensor, rng: np.random.Generator) -> Tensor:
        """Adds Poisson noise, in its normal approximation, and read noise."""
        noise = torch.from_numpy(rng.standard_normal(tuple(raw.shape), np.float32))
        return (raw + noise * (self.shot * raw + self.read**2).sqrt()).clamp(0, 1)


def mosaic(light: Tensor, phase: tuple[int, int]) -> Tensor:
    """Keeps one colour per pixel; the Bayer pattern R G / G B starts at `phase`: (1, 3, H, W) → (1, 1, H, W)."""
    raw = light[:, 1:2].clone()
    (top, left) = phase
    raw[..., top::2, left::2] = light[:, 0:1, top::2, left::2]
    raw[..., 1 - top :: 2, 1 - left :: 2] = light[:, 2:3, 1 - top :: 2, 1 - left :: 2]
    return raw


def demosaic(raw: Tensor, phase: tuple[int, int], method: str) -> Tensor:
    """:param raw: (1, 1, H, W)
    :param method: "malvar" or "bilinear"
    :returns: (1, 3, H, W); a measured value is kept as it is
    """
    kernels = {"malvar": _MALVAR, "bilinear": _BILINEAR}[method]
    reach = kernels.shape[-1] // 2
    green, in_row, in_column, diagonal = F.conv2d(F.pad(raw, (reach,) * 4, mode="reflect"), kernels).unbind(1)
    plane = raw[:, 0]
    picture = torch.stack((plane, plane, plane), dim=1)
    (top, left), (bottom, right) = phase, (1 - phase[0], 1 - phase[1])
    for channel, (row, column), (other_row, other_column) in (
        (0, (top, left), (bottom, right)),
        (2, (bottom, right), (top, left)),
    ):
        picture[:, 1, row::2, column::2] = green[:, row::2, column::2]
        picture[:, channel, row::2, other_column::2] = in_row[:, row::2, other_column::2]
        picture[:, channel, other_row::2, column::2] = in_column[:, other_row::2, column::2]
        picture[:, channel, other_row::2, other_column::2] = diagonal[:, other_row::2, other_column::2]
    return picture


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of each channel, edges reflected: (B, C, H, W) → (B, C, H, W)."""
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = F.pad(image, (reach,) * 4, mode="reflect").flatten(0, 1)[:, None]  # (B·C, 1, H, W)
    planes = F.conv2d(F.conv2d(planes, kernel[None, None, :, None]), kernel[None, None, None, :])
    return planes.reshape(image.shape)


def shrink_details(image: Tensor, threshold: float) -> Tensor:
    """Denoising by coring: what differs from the local mean by less than the threshold is taken away."""
    base = gaussian(image, 1.0)
    return base + F.softshrink(image - base, threshold)


def unsharp(image: Tensor, amount: float) -> Tensor:
    """Adds back a share of the difference from a blurred copy."""
    return image + amount * (image - gaussian(image, 1.0))
