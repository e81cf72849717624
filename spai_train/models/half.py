"""Half precision inside a forward, so that no exporter decides where numbers are rounded."""

from typing import Any

import torch
from torch import Tensor, nn

PATCHES_IN = torch.float16  # pixels and weights of a patch embedding are far from its limits


class Half(nn.Module):
    """A module that takes fp32 and computes in half.

    :param module: its tensors are converted
    :param gives: the type of its output; half too where another layer in half follows
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, gives: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.dtype, self.gives = module.to(dtype), dtype, gives

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """:param options: the module's own"""
        return self.module(x.to(self.dtype), **options).to(self.gives)  # type: ignore[no-any-return]


def halve_backbone(encoder: Any, dtype: torch.dtype) -> None:
    """Halves the blocks of an encoder's ViT; what follows it stays fp32."""
    halve_blocks(encoder.backbone, dtype)


def halve_blocks(backbone: Any, dtype: torch.dtype) -> None:
    """Halves attention and MLP of a ViT's blocks, each between two casts, and its patch embedding, in place.

    Every LayerNorm, LayerScale and the residual stream stay fp32, so that the stream does not overflow where blocks add
    up a large channel. The patch embedding is fp16 in bf16 too, which costs nothing: ONNX has no bf16 Conv before opset
    22.
    """
    backbone.patch_embed.proj = Half(backbone.patch_embed.proj, PATCHES_IN)
    for block in backbone.blocks:
        block.attn, block.mlp = Half(block.attn, dtype), Half(block.mlp, dtype)


def halve_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Halves every linear layer and every convolution, each between two casts, in place; all else stays fp32.

    Convolutions are fp16 in bf16 too, for the reason that patch embeddings are.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | nn.Conv2d):
            setattr(module, name, Half(child, dtype if isinstance(child, nn.Linear) else PATCHES_IN))
        else:
            halve_layers(child, dtype)
