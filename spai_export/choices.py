"""What an export can be asked for, in a file without torch, so that --help needs none."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spai_runtime.errors import UserError
from spai_runtime.manifest import Threshold


class Precision(StrEnum):
    """What the encoder's linear layers, convolution and attention compute in; the rest, and the head, stay fp32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def quantised(self) -> bool:
        """Whether matrix products are of 8 bits, with scales found on calibration images."""
        return self in (Precision.INT8, Precision.FP8)


class Attention(StrEnum):
    """How a graph writes attention."""

    AUTO = "auto"
    PLAIN = "plain"
    FUSED = "fused"

    def fused(self, precision: Precision, *, trt: bool) -> bool:
        """Whether it is one Attention node; `auto` is what the engine is fast with that the graph is meant for."""
        if self is Attention.AUTO:
            return precision in (Precision.FP16, Precision.BF16) and not trt
        return self is Attention.FUSED


class Int8For(StrEnum):
    """What runs the graph in int8."""

    CPU = "cpu"
    GPU = "gpu"


class TrtFor(StrEnum):
    """Which GPUs plans are built for."""

    GPU = "gpu"
    RTX = "rtx"


@dataclass(frozen=True)
class Settings:
    """What one export asks for.

    :param precisions: one artifact each; the first has the plain names of files
    :param trt: whether plans are built from the graphs
    :param threshold: None takes that of the checkpoint
    :param images: folder of what lower precisions are calibrated on and compared with fp32 on; None are the examples
    :param force: whether a detector is written whose scores are too far from those of fp32
    :param ten_crop: whether it looks at ten crops instead of its own views
    :param int8_for: None is a GPU where plans are built, else a CPU
    """

    precisions: tuple[Precision, ...] = (Precision.FP32,)
    attention: Attention = Attention.AUTO
    trt: bool = False
    threshold: Threshold | None = None
    images: Path | None = None
    force: bool = False
    ten_crop: bool = False
    int8_for: Int8For | None = None

    def __post_init__(self) -> None:
        """:raises UserError: settings that do not go together"""
        for precision in self.precisions:
            if self.precisions.count(precision) > 1:
                raise UserError(f"--precision {precision} is given twice: once is enough")
            if precision.quantised and self.images is None:
                raise UserError(
                    f"{precision} finds its scales on images: give --images a folder of 500 such as will be scored"
                )
            if precision.quantised and self.fused(precision):
                raise UserError(f"{precision} needs its attention plain: leave --attention out")
        if self.int8_for and Precision.INT8 not in self.precisions:
            raise UserError("--int8-for says what int8 is to run on: give --precision int8 too")
        if self.int8_for is Int8For.CPU and self.trt:
            raise UserError("TensorRT builds nothing from int8 for a CPU: leave out --trt, or --int8-for cpu")

    def for_cpu(self, precision: Precision) -> bool:
        """Whether its graph is for CPUs, and no other place."""
        wanted = self.int8_for or (Int8For.GPU if self.trt else Int8For.CPU)
        return precision is Precision.INT8 and wanted is Int8For.CPU

    def around(self, precision: Precision) -> Precision:
        """What is not quantised is computed in: in fp32 on CPUs, most of which have nothing faster."""
        return Precision.FP32 if self.for_cpu(precision) else precision

    def fused(self, precision: Precision) -> bool:
        """Whether attention is one node, of opset 23, in the graph of that precision."""
        return self.attention.fused(precision, trt=self.trt)


def file_name(name: str, precision: str, *, first: bool) -> str:
    """`encoder.onnx` → its name in one precision of several: as it is for the first, else `encoder.fp16.onnx`."""
    stem, _, suffix = name.partition(".")
    return name if first else f"{stem}.{precision}.{suffix}"


def labelled(sentences: Iterable[str], precision: str, *, alone: bool) -> list[str]:
    """Sentences on one precision that say which it is, where there are several."""
    return [sentence if alone else f"{precision}: {sentence}" for sentence in sentences]
