"""An encoder in half precision: a copy whose forward says where numbers are rounded, so that no exporter decides it.

In half: attention and MLP of the blocks, each between two casts, the projectors up to their last LayerNorm, and the
patch embedding. In fp32: scaling, filter, normalisation, every LayerNorm, LayerScale, the residual stream, cosine, mean
and std, the spectral context, and the features.

The patch embedding is fp16 in bf16 too, which costs nothing: the high-pass is a grey level or two, and rounding those
weights alone to bf16 moves the demo detector's score of a photograph beyond the gate's limit, to fp16 by less than a
fifth of that (`tests/export/test_precision.py`); nor has ONNX a bf16 Conv before opset 22. The residual stream in fp32
takes as many casts as in half would, since LayerNorm is fp32 either way, and does not overflow where blocks add up a
large channel.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from spai_export.choices import Precision
from spai_train.models.spai import Projector, SpectralEncoder
from spai_train.models.vit import ShapelessAttention

__all__ = ["COMPUTED_IN", "PATCHES_IN", "Half", "Precision", "cast"]

COMPUTED_IN: Mapping[Precision, torch.dtype] = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
    Precision.INT8: torch.float16,  # around what is quantised
    Precision.FP8: torch.float16,
}
PATCHES_IN = torch.float16  # pixels and weights of a patch embedding are far from its limits


class Half(nn.Module):
    """A module that takes fp32 and computes in half.

    :param module: its tensors are converted
    :param gives: the type of what it gives; half too where another layer in half follows
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, gives: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.dtype, self.gives = module.to(dtype), dtype, gives

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """:param options: the module's own"""
        return self.module(x.to(self.dtype), **options).to(self.gives)  # type: ignore[no-any-return]


def cast(encoder: SpectralEncoder, precision: Precision, *, fused: bool = False) -> SpectralEncoder:
    """A copy for inference that computes in that precision; in fp32 it computes what the encoder does, bit for bit.

    :param precision: of 8 bits: the fp16 copy, which quantisation starts from
    :param fused: whether attention is one operator, for opset 23, instead of products around a softmax
    """
    copy, dtype = deepcopy(encoder), COMPUTED_IN[precision]
    for module in copy.modules():
        if isinstance(module, ShapelessAttention):
            module.fused = fused
    if dtype != torch.float32:
        _halve(copy, dtype)
    return copy.eval().requires_grad_(False)


def _halve(encoder: SpectralEncoder, dtype: torch.dtype) -> None:
    backbone = encoder.backbone
    backbone.patch_embed = Half(backbone.patch_embed, PATCHES_IN)
    for block in backbone.blocks:
        block.attn, block.mlp = Half(block.attn, dtype), Half(block.mlp, dtype)
    for projector in encoder.projectors:
        assert isinstance(projector, Projector)
        projector.layers.to(dtype)
        projector.layers[0] = Half(projector.layers[0], dtype, gives=dtype)  # its last LayerNorm casts up itself
