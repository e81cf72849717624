"""Tensors that upstream's model creates and detection never reads: its strict loading wants them all the same."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spai_train.detectors.spai.config import SPAIConfig

CLASSES = 2  # of upstream's `head`: as many as its CSVs have
SEED = 0  # of the values, so that a model is always written as the same bytes


def unused_tensors(config: SPAIConfig) -> dict[str, Tensor]:
    """The tensors under upstream's names, drawn as upstream draws them (`sid.py`, `_init_weights`); none is trained.

    Linear layers and tokens are N(0, 0.02²), norms are 1, biases are 0.
    """
    generator = torch.Generator().manual_seed(SEED)
    return {f"mfvit.vit.{name}": _first_value(name, shape, generator) for name, shape in _shapes(config)}


def _shapes(config: SPAIConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shapes of what upstream's VisionTransformer has beside patch embedding, positions, CLS token and blocks."""
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    tokens = (config.tile_size // config.patch_size) ** 2 + 1
    yield "cls_pos_embed", (1, tokens, width)
    yield "actual_cls_token", (1, 1, width)
    yield from _norm("fc_norm", width)
    for part in ("norm1", "norm2"):
        yield from _norm(f"cls_blocks.0.{part}", width)
    for part in ("q_bias", "v_bias"):
        yield f"cls_blocks.0.attn.{part}", (width,)
    yield "cls_blocks.0.attn.qkv.weight", (3 * width, width)
    yield from _linear("cls_blocks.0.attn.proj", width, width)
    yield from _linear("cls_blocks.0.mlp.fc1", width, hidden)
    yield from _linear("cls_blocks.0.mlp.fc2", hidden, width)
    for index in range(len(config.blocks)):
        yield from _norm(f"intermediate_fc_norm.{index}", width)
    yield from _linear("head", width * len(config.blocks), CLASSES)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _first_value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return nn.init.trunc_normal_(torch.empty(shape), std=0.02, generator=generator)
