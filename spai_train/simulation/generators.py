"""Small generators of images: auto-encoders that differ in how they up-sample, and a flawed Laplacian pyramid.

A generator rebuilds an image from something smaller, and its up-sampling leaves periodic traces in the spectrum
(Durall et al., "Watch your up-convolution", CVPR 2020; Odena et al., "Deconvolution and checkerboard artifacts",
2016). Colour comes through a skip, so that only those traces tell. Axes: B images, C channels, H W pixels in [0, 1].
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.data import Image

GRID = 8  # a generated image's sides are multiples of this, the largest up-sampling factor


@dataclass(frozen=True)
class GeneratorSpec:
    """One generator.

    :param upsampling: The generator up-samples in this way: "transposed", "nearest", "bilinear", "shuffle",
        "laplacian".
    :param factor: The image is so many times as large as its latent, 4 or 8.
    """

    upsampling: str
    factor: int

    @property
    def name(self) -> str:
        return f"{self.upsampling}-x{self.factor}"

    def build(self, width: int) -> "Generator":
        """Builds the generator with random weights, from torch's global random numbers."""
        if self.upsampling == "laplacian":
            return LaplacianDecoder(self.factor)
        return AutoEncoder(self.upsampling, self.factor, width)


@dataclass(frozen=True)
class GeneratorTraining:
    """How the generators are trained.

    :param width: An auto-encoder has so many channels inside.
    :param steps: So many steps of the optimizer train a generator.
    :param batch_size: A step has so many crops.
    :param crops: There are so many real crops to learn from.
    :param crop_size: A crop has sides of so many pixels.
    """

    width: int = 24
    steps: int = 250
    batch_size: int = 8
    crops: int = 600
    crop_size: int = 96


class Generator(nn.Module):
    """Rebuilds images: (B, 3, H, W) → (B, 3, H, W), sides multiples of GRID."""

    def generate(self, image: Image, rng: np.random.Generator) -> Image:
        """:param image: (H, W, 3); what does not fill GRID × GRID at the right and the bottom is cut off"""
        height, width = (side - side % GRID for side in image.shape[:2])
        pixels = torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            rebuilt: Tensor = self(pixels).clamp(0, 1)
        return rebuilt[0].permute(1, 2, 0).mul(255).round().byte().numpy()


class AutoEncoder(Generator):
    """Strided convolutions down to a few channels, then `factor` up again in steps of two, and an RGB skip.

    The last step sees white noise too, from which a spectral loss teaches it to make fine texture.

    :param width: channels inside
    """

    def __init__(self, upsampling: str, factor: int, width: int) -> None:
        super().__init__()
        steps = factor.bit_length() - 1
        latent = 2 * factor
        channels = [3, *[width] * (steps - 1), latent]
        self.factor = factor
        self.encoder = nn.Sequential(*(_downsample(a, b) for a, b in pairwise(channels)))
        decoder = [_upsample(upsampling, latent if i == 0 else width, width) for i in range(steps)]
        self.decoder = nn.Sequential(*decoder)
        self.to_rgb = nn.Conv2d(width + 1, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """:param images: (B, 3, H, W) in [0, 1]
        :returns: (B, 3, H, W), not clamped
        """
        skip = F.interpolate(F.avg_pool2d(images, self.factor), scale_factor=self.factor, mode="bicubic")
        detail = self.decoder(self.encoder(images))
        noise = torch.randn_like(detail[:, :1])
        return skip + self.to_rgb(torch.cat((detail, noise), dim=1))  # type: ignore[no-any-return]


class LaplacianDecoder(Generator):
    """A Laplacian pyramid whose up-samplers have uneven phases: what a decoder's learned kernels look like.

    Its details are those of the image, so that sharpness gives nothing away.

    :param factor: between the image and the top of the pyramid
    """

    gains: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        steps = factor.bit_length() - 1
        self.register_buffer("gains", 1 + 0.02 * torch.randn(steps, 1, 1, 2, 2))

    def forward(self, images: Tensor) -> Tensor:
        """:param images: (B, 3, H, W) in [0, 1]
        :returns: (B, 3, H, W), not clamped
        """
        levels = [images]
        for _ in self.gains:
            levels.append(F.avg_pool2d(levels[-1], 2))
        image = levels[-1]
        for finer, coarser, gain in zip(levels[-2::-1], levels[:0:-1], self.gains, strict=True):
            flawed = F.interpolate(image, scale_factor=2, mode="nearest") * _tile(gain, finer)
            image = flawed + finer - F.interpolate(coarser, scale_factor=2, mode="bilinear")
        return image


def make_generator(spec: GeneratorSpec, crops: NDArray[np.uint8], training: GeneratorTraining, seed: int) -> Generator:
    """Builds a generator and fits it to real crops: mean absolute error, and that of the log spectrum.

    :param crops: (N, S, S, 3), S a multiple of GRID
    """
    torch.manual_seed(seed)
    generator = spec.build(training.width)
    if not list(generator.parameters()):
        return generator
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255  # (N, 3, S, S)
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for _ in range(training.steps):
        batch = pixels[torch.randint(len(pixels), (training.batch_size,))]
        optimizer.zero_grad(set_to_none=True)
        reconstruction_loss(generator(batch), batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return generator.eval().requires_grad_(False)


def reconstruction_loss(rebuilt: Tensor, images: Tensor) -> Tensor:
    """The loss of images (B, 3, S, S); its spectral term keeps fine texture, which the other would average away."""
    return F.l1_loss(rebuilt, images) + 0.02 * F.l1_loss(_log_spectrum(rebuilt), _log_spectrum(images))


def _log_spectrum(images: Tensor) -> Tensor:
    """The logarithm of the amplitude spectrum of the brightness: (B, S, S/2 + 1)."""
    return torch.log(torch.fft.rfft2(images.mean(dim=1), norm="ortho").abs() + 1e-2)


def _downsample(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2))


def _upsample(kind: str, inputs: int, outputs: int) -> nn.Module:
    """Doubles the sides: (B, inputs, h, w) → (B, outputs, 2h, 2w)."""
    activation = nn.LeakyReLU(0.2)
    if kind == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1), activation)
    if kind == "shuffle":
        return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2), activation)
    assert kind in ("nearest", "bilinear"), kind
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), nn.Conv2d(inputs, outputs, 3, padding=1), activation)


def _tile(gain: Tensor, like: Tensor) -> Tensor:
    """A 2 × 2 pattern repeated over an image: (1, 1, 2, 2) → (1, 1, H, W)."""
    return gain.tile(1, 1, like.shape[2] // 2, like.shape[3] // 2)
