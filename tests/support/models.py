"""Models of random weights: as small as can be, of uneven dimensions, and of each family of backbones."""

from dataclasses import replace

import torch
from torch import nn

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.models.vit import BackboneName

TINY = SPAIConfig(
    tile_size=32,
    tile_stride=32,
    mask_radius=4,
    patch_size=8,
    width=16,
    depth=2,
    heads=2,
    mlp_ratio=2.0,
    blocks=(0, 1),
    projection=8,
    attention_width=8,
    attention_heads=2,
    head_ratio=2,
)


UNEVEN = SPAIConfig(
    tile_size=32,
    tile_stride=32,
    mask_radius=3,
    patch_size=8,
    width=24,
    depth=3,
    heads=2,
    blocks=(0, 2),
    projection=8,
    attention_width=12,
    attention_heads=3,
)


CONFIGS: dict[BackboneName, SPAIConfig] = {
    "mfm": TINY,
    "clip": replace(TINY, backbone="clip"),
    "dinov2": replace(TINY, backbone="dinov2", tile_size=28, tile_stride=28, patch_size=7),
}


def model_of(family: BackboneName) -> SPAI:
    """With weights far from their first ones, so that no scale or bias is 1 or 0."""
    torch.manual_seed(0)
    model = SPAI(CONFIGS[family]).eval()
    for parameter in model.encoder.backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model
