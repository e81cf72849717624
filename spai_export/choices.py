"""What an export can be asked for, in a file without torch, so that --help needs none."""

from enum import StrEnum


class Precision(StrEnum):
    """What the encoder's linear layers, convolution and attention compute in; the rest, and the head, stay fp32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def quantised(self) -> bool:
        """Whether matrix products are of 8 bits, with scales found on calibration images; around them it is fp16."""
        return self in (Precision.INT8, Precision.FP8)


class Attention(StrEnum):
    """How a graph says attention."""

    AUTO = "auto"
    PLAIN = "plain"
    FUSED = "fused"

    def fused(self, precision: Precision, *, trt: bool) -> bool:
        """Whether it is one Attention node; `auto` is what the engine is fast with that the graph is meant for."""
        if self is Attention.AUTO:
            return precision in (Precision.FP16, Precision.BF16) and not trt
        return self is Attention.FUSED
