"""A backbone without training: random blocks behind a patch embedding that whitens real patches.

Whitening makes the weak, high frequencies of a patch weigh as much as the strong, low ones; the random blocks then
mix tokens. It stands in for the masked-frequency pre-training that the published model has and minutes cannot buy.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from spai_train.models.vit import Backbone


class Normalising(Protocol):
    """A module that normalises pixels: `mean` and `std` (3, 1, 1)."""

    mean: Tensor
    std: Tensor


def sample_patches(model: Normalising, backbone: Backbone, views: Tensor, count: int, seed: int) -> Tensor:
    """Patches as the backbone sees them, from anywhere in the views.

    :param model: the module whose `mean` and `std` normalise what its backbone gets
    :param views: (N, S, S, 3) uint8
    :returns: (count, C·P·P) float32, P the side of a patch
    """
    side = backbone.patch_embed.patch_size[0]
    size = views.shape[1] - side + 1
    images = ((views.float() / 255).permute(0, 3, 1, 2) - model.mean) / model.std  # (N, C, S, S)
    index = np.random.default_rng(seed).integers((len(views), size, size), size=(count, 3))
    return torch.stack([images[n, :, y : y + side, x : x + side].flatten() for n, y, x in index.tolist()])


@torch.no_grad()
def whiten_patches(backbone: Backbone, patches: Tensor, floor: float = 1e-4) -> None:
    """Sets the patch embedding to the leading principal components of patches, each scaled to unit variance.

    :param patches: (M, C·P·P), M well above C·P·P
    :param floor: added to the variances, relative to their mean
    """
    embedding: nn.Conv2d = backbone.patch_embed.proj
    mean = patches.double().mean(dim=0)
    covariance = torch.cov(patches.double().T)
    variances, axes = torch.linalg.eigh(covariance)  # ascending
    width = embedding.out_channels
    scale = (variances + floor * variances.mean()).rsqrt()
    weight = (axes * scale).T.flip(0)[:width]  # (width, C·P·P)
    weight = weight * weight[:, :1].sign()  # eigenvectors come with either sign
    embedding.weight.copy_(weight.reshape(embedding.weight.shape))
    assert embedding.bias is not None
    embedding.bias.copy_(-(weight @ mean))


@torch.no_grad()
def scale_by_fan_in(module: nn.Module) -> None:
    """Draws the weights of all linear layers from N(0, 1/fan_in), biases 0.

    At the usual deviation of 0.02, the features are so alike that the loss stays at ln 2.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
