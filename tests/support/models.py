"""Models of random weights: as small as can be, of uneven dimensions, and of each family of backbones."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.models.vit import BackboneName
from spai_train.torch_engine import as_detector

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
    "dinov2_vitg14": replace(TINY, backbone="dinov2_vitg14", tile_size=28, tile_stride=28, patch_size=7),
}


def sharpened(model: SPAI, image: Path) -> SPAI:
    """A copy whose score of an image half precision moves: a large multiple of the logit, about 0."""
    copy = deepcopy(model)
    last = copy.head.mlp[-1]
    logit = as_detector(copy).score(image).logit
    with torch.no_grad():
        last.bias.copy_(2e4 * (last.bias - logit))
        last.weight *= 2e4
    return copy


def model_of(family: BackboneName) -> SPAI:
    """With weights far from their first ones, so that no scale or bias is 1 or 0."""
    torch.manual_seed(0)
    model = SPAI(CONFIGS[family]).eval()
    for parameter in model.encoder.backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model
