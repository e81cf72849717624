"""Masked frequency modelling (arXiv 2206.07706), the pre-training of SPAI's backbone.

A random half of the images loses its high frequencies, the other half its low ones; a ViT with a linear decoder is to
bring back what was lost. Axes: N images in a batch, S side of an image, L = G·G patch tokens, C width.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from spai_train.detectors.spai.config import SPAIConfig
from spai_train.detectors.spai.spectral import SpectralFilter, centred_mask
from spai_train.detectors.spai.upstream import vit_settings
from spai_train.models.pretrained import split
from spai_train.models.vit import FAMILIES, Backbone


@dataclass(frozen=True)
class FrequencyLoss:
    """The distance between two batches, frequency by frequency (upstream `frequency_loss.py`).

    :param gamma: Distances are raised to this power, so that below 1 the small ones weigh more.
    :param target: The loss is the mean over the frequencies that were removed (`masked`, published) or over all
        (`normal`).
    """

    gamma: float = 1.0
    target: Literal["masked", "normal"] = "masked"

    def __call__(self, predicted: Tensor, original: Tensor, removed: Tensor) -> Tensor:
        """:param predicted: (N, 3, S, S), like `original`
        :param removed: (N, S, S), 1 where the frequency was removed, else 0, DC at [0, 0]
        :returns: a scalar
        """
        spectrum: Tensor = torch.fft.fft2(predicted - original, norm="ortho")  # linear: the distance of the two spectra
        distance = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt().pow(self.gamma)
        if self.target == "normal":
            return distance.mean()
        return (distance * removed.unsqueeze(1)).sum() / removed.sum() / distance.shape[1]


class MaskedFrequencyModel(nn.Module):
    """The backbone with the head that only pre-training has, under the names of upstream's `MFM`.

    :param config: the dimensions of the backbone and the radius of the mask; nothing else is read, and no path is
        dropped, as published
    """

    mask: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: SPAIConfig, loss: FrequencyLoss = FrequencyLoss()) -> None:
        super().__init__()
        assert config.backbone == "mfm"
        self.config, self.loss = config, loss
        family = replace(FAMILIES["mfm"], final_norm=True)
        self.filter = SpectralFilter(config.tile_size, config.mask_radius, centred_mask)
        self.encoder = Backbone((config.depth - 1,), family, **config.vit)
        self.decoder = nn.Sequential(
            nn.Conv2d(config.width, 3 * config.patch_size**2, kernel_size=1), nn.PixelShuffle(config.patch_size)
        )
        mask = np.fft.ifftshift(centred_mask(config.tile_size, config.mask_radius))
        self.register_buffer("mask", torch.from_numpy(mask).float(), persistent=False)
        for name, values in (("mean", family.mean), ("std", family.std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)
        initialise_encoder(self.encoder)

    def forward(self, crops: Tensor, low: Tensor) -> Tensor:
        """:param crops: (N, S, S, 3) uint8
        :param low: (N,) bool, whether the low frequencies are kept, else the high ones
        :returns: the loss, a scalar
        """
        pixels = crops.to(self.mean.dtype).div(255).permute(0, 3, 1, 2)  # (N, 3, S, S)
        predicted = self.predict((self.corrupt(pixels, low) - self.mean) / self.std)
        removed = torch.where(low[:, None, None], 1 - self.mask, self.mask)  # (N, S, S)
        return self.loss(predicted, (pixels - self.mean) / self.std, removed)

    def corrupt(self, pixels: Tensor, low: Tensor) -> Tensor:
        """:param pixels: (N, 3, S, S) in [0, 1]
        :returns: the low-pass of the images that `low` names, the high-pass of the others, clamped to [0, 1]
        """
        kept = self.filter(pixels)
        return torch.where(low[:, None, None, None], kept, pixels - kept).clamp(0, 1)

    def predict(self, images: Tensor) -> Tensor:
        """:param images: (N, 3, S, S), corrupted and normalised
        :returns: what they were before, normalised: (N, 3, S, S)
        """
        (tokens,) = self.encoder(images)  # (N, L, C)
        grid = self.config.tile_size // self.config.patch_size
        return self.decoder(tokens.transpose(1, 2).unflatten(2, (grid, grid)))  # type: ignore[no-any-return]


@torch.no_grad()
def initialise_encoder(encoder: Backbone) -> None:
    """Upstream's first weights (`VisionTransformerForMFM`): N(0, 0.02²) cut at one deviation, biases 0; what leads back
    into the residual stream is divided by √(2·n) in the n-th block. LayerNorms start as 1 and 0, as torch's do.
    """
    for layer in encoder.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _truncated_normal(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    _truncated_normal(encoder.pos_embed)
    _truncated_normal(encoder.cls_token)
    for number, block in enumerate(encoder.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight /= (2 * number) ** 0.5


def _truncated_normal(weight: Tensor) -> None:
    nn.init.trunc_normal_(weight, std=0.02, a=-0.02, b=0.02)


def save_pretrained(path: str | Path, model: MaskedFrequencyModel, epoch: int = 0) -> None:
    """Writes a `.pth` that upstream's `--pretrained` and our `load_pretrained` read; its config is a plain dict."""
    parts = [part for name, tensor in model.state_dict().items() for part in split(name, tensor, str)]
    torch.save({"model": dict(parts), "epoch": epoch, "config": pretraining_settings(model)}, path)


def pretraining_settings(model: MaskedFrequencyModel) -> dict[str, Any]:
    """The part of upstream's configuration that describes a masked frequency model, under upstream's names."""
    config, loss = model.config, model.loss
    return {
        "DATA": {"IMG_SIZE": config.tile_size, "FILTER_TYPE": "mfm", "MASK_RADIUS1": config.mask_radius},
        "MODEL": {
            "TYPE": "vit",
            "DROP_PATH_RATE": 0.0,
            "RECOVER_TARGET_TYPE": loss.target,
            "VIT": {**vit_settings(config), "USE_MEAN_POOLING": False},
            "FREQ_LOSS": {"LOSS_GAMMA": loss.gamma},
        },
    }
