"""An encoder in half precision: a copy whose forward says where numbers are rounded, so that no exporter decides it.

The detector says which modules compute in half, and why: `DetectorSpec.halve`.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn

from spai_export.choices import Precision
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import Half
from spai_train.models.vit import ShapelessAttention

__all__ = ["COMPUTED_IN", "Half", "Precision", "cast"]

COMPUTED_IN: Mapping[Precision, torch.dtype] = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
    Precision.INT8: torch.float16,  # around what is quantised
    Precision.FP8: torch.float16,
}


def cast(detector: DetectorSpec, encoder: nn.Module, precision: Precision, *, fused: bool = False) -> nn.Module:
    """A copy for inference that computes in that precision; in fp32 it computes what the encoder does, bit for bit.

    :param detector: the detector whose encoder it is
    :param precision: one of 8 bits gives the fp16 copy, which quantisation starts from
    :param fused: whether attention is one operator, for opset 23, instead of products around a softmax
    """
    copy, dtype = deepcopy(encoder), COMPUTED_IN[precision]
    for module in copy.modules():
        if isinstance(module, ShapelessAttention):
            module.fused = fused
    if dtype != torch.float32:
        detector.halve(copy, dtype)
    return copy.eval().requires_grad_(False)
