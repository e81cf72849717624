"""What an export can be asked for, in a file without torch, so that --help needs none."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spai_runtime.errors import UserError
from spai_runtime.manifest import Threshold


class Precision(StrEnum):
    """The precision of the encoder's linear layers, convolution and attention; the rest, and the head, stay fp32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def quantised(self) -> bool:
        """Whether matrix products are in 8 bits, with scales found on calibration images."""
        return self in (Precision.INT8, Precision.FP8)


class Attention(StrEnum):
    """How a graph writes attention."""

    AUTO = "auto"
    PLAIN = "plain"
    FUSED = "fused"

    def fused(self, precision: Precision, *, trt: bool) -> bool:
        """Whether attention is one Attention node; `auto` takes what is faster in the engine that the graph is for."""
        if self is Attention.AUTO:
            return precision in (Precision.FP16, Precision.BF16) and not trt
        return self is Attention.FUSED


class Int8For(StrEnum):
    """What runs the graph in int8."""

    CPU = "cpu"
    GPU = "gpu"


class TrtFor(StrEnum):
    """The GPUs that plans are built for."""

    GPU = "gpu"
    RTX = "rtx"


@dataclass(frozen=True)
class Settings:
    """What one export asks for.

    :param precisions: one artifact each; the first has the plain names of files
    :param trt: whether plans are built from the graphs
    :param threshold: the detector's threshold; None takes that of the checkpoint
    :param images: a folder of images that lower precisions are calibrated on and compared with fp32 on; None takes the
        examples
    :param force: whether a detector is written even if its scores are too far from those of fp32
    :param ten_crop: whether the detector looks at ten crops instead of its own views
    :param int8_for: what runs int8; None means a GPU where plans are built, else a CPU
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
        """:raises UserError: settings do not go together"""
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
        """Whether the graph of that precision is for CPUs alone."""
        wanted = self.int8_for or (Int8For.GPU if self.trt else Int8For.CPU)
        return precision is Precision.INT8 and wanted is Int8For.CPU

    def around(self, precision: Precision) -> Precision:
        """The precision of what is not quantised: fp32 on CPUs, most of which have nothing faster."""
        return Precision.FP32 if self.for_cpu(precision) else precision

    def fused(self, precision: Precision) -> bool:
        """Whether attention is one node of opset 23 in the graph of that precision."""
        return self.attention.fused(precision, trt=self.trt)


def file_name(name: str, precision: str, *, first: bool) -> str:
    """A file's name in one precision of several: `encoder.onnx` for the first, else `encoder.fp16.onnx`."""
    stem, _, suffix = name.partition(".")
    return name if first else f"{stem}.{precision}.{suffix}"


def labelled(sentences: Iterable[str], precision: str, *, alone: bool) -> list[str]:
    """Sentences on one precision, which name it where there are several."""
    return [sentence if alone else f"{precision}: {sentence}" for sentence in sentences]
