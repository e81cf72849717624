"""CO-SPY's artifact branch: what an image has beyond its reconstruction, and a network that reads that.

Axes: N views in a batch, H and W of a feature map.
"""

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.resnet import Bottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.linear import Pixels
from spai_train.models.vae import VAE, VAEConfig

WIDTH = 512  # what the branch gives of a view
SIDE = 224  # what the branch sees of a view, in pixels; it was trained on crops of that size


class Reconstruction(nn.Module):
    """What the VAE of a diffusion model does not give back (upstream `detectors/sd-v1_4/artifact.py`), in fp32.

    It takes pixels in [0, 1], where Stable Diffusion takes them in [−1, 1]; so does upstream.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.pixels, self.vae = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), VAE(config).requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, 3, 224, 224)"""
        images = F.interpolate(self.pixels(views), (SIDE, SIDE), mode="bilinear")
        with torch.no_grad():
            reconstruction = self.vae(images)
        return (images - reconstruction) / 7 * 100  # type: ignore[no-any-return]


class Neighbours(nn.Module):
    """Neighbouring pixel relationships (Tan et al., CVPR 2024; upstream `detectors/progan/artifact.py`): what an image
    loses when one pixel of four is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)

    def forward(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, 3, S, S); S is even."""
        images = self.pixels(views)
        coarse = F.interpolate(images[:, :, ::2, ::2], scale_factor=2.0, mode="nearest")
        return (images - coarse) * 2 / 3  # type: ignore[no-any-return]


class Artifacts(nn.Module):
    """The residual, and the first two stages of a ResNet-50 with a stem of stride 2 in 3×3 pixels.

    :param vae: the VAE whose reconstruction is taken away; None compares neighbouring pixels
    """

    def __init__(self, vae: VAEConfig | None) -> None:
        super().__init__()
        self.residual = Neighbours() if vae is None else Reconstruction(vae)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2 = _stage(64, 64, blocks=3, stride=1), _stage(256, 128, blocks=4, stride=2)

    @property
    def learned(self) -> tuple[nn.Module, ...]:
        """The modules that learn: all but the VAE."""
        return self.conv1, self.bn1, self.layer1, self.layer2

    def forward(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, WIDTH)"""
        x = self.maxpool(F.relu(self.bn1(self.conv1(self.residual(views)))))
        return self.layer2(self.layer1(x)).mean(dim=(2, 3))  # type: ignore[no-any-return]


def _stage(before: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
    """A stage of ResNet-50, (N, before, H, W) → (N, 4·planes, H / stride, W / stride)."""
    width = 4 * planes
    around = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    rest = [Bottleneck(width, planes) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(before, planes, stride, around), *rest)
