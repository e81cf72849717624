"""The ONNX operators that this project exports, and what TensorRT takes of each: one row an operator.

The rows are the operators of all detectors, in every precision, with attention plain and fused, with Q/DQ and without,
and those of a probe over a small model of each of timm's families. The table says nothing of other operators that a
graph may have, and the export tells the user so.

What a row says of types, ranks, attributes and the rest was tried with NVIDIA's own parser and builder, those of
TensorRT for RTX 1.7, and tests/export/test_lint_real.py tries it again. `since`, and the opsets of each release, are
from documentation alone, since they concern releases that were not at hand. The table does not say what a single GPU or
target lacks (fp8, for example).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx import TensorProto

Version = tuple[int, int]

FLOAT = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
FULL_OR_HALF = FLOAT - {TensorProto.BFLOAT16}
NUMBER = FLOAT | {TensorProto.INT32, TensorProto.INT64}
BOOL = frozenset({TensorProto.BOOL})
ANY = NUMBER | BOOL
EVERY = ANY | {TensorProto.UINT8}  # the types that rows speak of; int8 and fp8 lie between Q and DQ alone
QUANTIZED = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN})

OLDEST = (10, 12)
MAX_RANK = 8  # Dims::MAX_DIMS in TensorRT's headers


@dataclass(frozen=True)
class Row:
    """What TensorRT takes of one operator of the domain ai.onnx.

    :param types: element types that the inputs in `typed` may have
    :param mixes: whether its inputs may have several types where ONNX wants one
    :param since: the first TensorRT that imports it
    :param instead: what to do where it is not imported
    :param constant: inputs, by index, that must be initializers, with their names
    :param zero: inputs that must be 0 where they are known
    :param ranks: ranks that the first input may have; an empty list allows all
    :param last_axis: what the last axis of the first input may be
    :param attributes: values that an attribute, or each item of it, may have; an empty list forbids it
    :param inputs: how many inputs it takes at most, `outputs` how many outputs it gives
    """

    operator: str
    types: frozenset[int]
    mixes: bool = False
    since: Version = OLDEST
    instead: str = ""
    typed: range = range(1)
    constant: Mapping[int, str] = field(default_factory=dict)
    zero: Mapping[int, str] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    last_axis: range | None = None
    attributes: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    inputs: int | None = None
    outputs: int | None = None


def _alike(operators: str, types: frozenset[int]) -> Iterator[Row]:
    return (Row(operator, types) for operator in operators.split())


_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")

_ROWS = (
    # element by element
    *_alike("Cos Gelu HardSigmoid LeakyRelu Reciprocal Sigmoid Sin Softmax Sqrt", FLOAT),
    *_alike("Add Clip Div Mul Neg Pow Sub", NUMBER),
    *_alike("HardSwish", FULL_OR_HALF),
    *_alike("Relu", FLOAT | {TensorProto.INT64}),  # and no int32
    *_alike("Not", BOOL),
    Row("Where", ANY, typed=range(1, 3)),
    # products
    *_alike("Conv Einsum LSTM MatMul", FLOAT),
    *_alike("ConvTranspose", FULL_OR_HALF),
    Row("Gemm", FLOAT, ranks=(2,)),
    Row(  # onnx-tensorrt's docs/Changelog.md, 10.14; a head has its kernel whole, or the build fails
        "Attention",
        FLOAT - {TensorProto.FLOAT},
        since=(10, 14),
        instead="export with --attention plain",
        typed=range(3),
        last_axis=range(9, 257),
        attributes={"softcap": (0.0,), "softmax_precision": ()},
        inputs=4,
        outputs=1,
    ),
    # normalization, pooling, reductions
    *_alike("InstanceNormalization", FLOAT),
    Row("LayerNormalization", FLOAT, outputs=1),
    Row("BatchNormalization", FLOAT, attributes={"training_mode": (0,)}, outputs=1),
    Row("RMSNormalization", NUMBER, since=(10, 15)),  # onnx-tensorrt's docs/Changelog.md, 10.15
    Row("AveragePool", FLOAT, ranks=(3, 4, 5), attributes={"dilations": (1,)}),
    Row("MaxPool", FLOAT, ranks=(3, 4, 5), attributes={"dilations": (1,)}, outputs=1),
    Row("ReduceL2", FLOAT, constant={1: "axes"}),
    *(Row(f"Reduce{name}", NUMBER, constant={1: "axes"}) for name in ("Max", "Mean", "Sum")),
    Row("CumSum", NUMBER, constant={1: "axis"}),
    # form
    *_alike("Concat Expand Gather GatherND Reshape Slice Split Tile Transpose", ANY),
    *_alike("Identity Shape", EVERY),
    *_alike("Range", FULL_OR_HALF - {TensorProto.FLOAT16} | NUMBER - FLOAT),
    Row("Pad", ANY, mixes=True),
    Row("ScatterElements", ANY, attributes={"reduction": ("none",)}),
    Row("Squeeze", ANY, constant={1: "axes"}),
    Row("Unsqueeze", ANY, constant={1: "axes"}),
    Row(
        "Resize",
        FLOAT,
        attributes={
            "antialias": (0,),
            "coordinate_transformation_mode": _COORDINATES,
            "keep_aspect_ratio_policy": ("stretch",),
        },
    ),
    # types
    *_alike("Cast", EVERY),
    Row("QuantizeLinear", FLOAT, mixes=True, zero={2: "y_zero_point"}),
    Row("DequantizeLinear", QUANTIZED, zero={2: "x_zero_point"}),
)

TABLE: Mapping[str, Row] = {row.operator: row for row in _ROWS}
assert len(TABLE) == len(_ROWS), "an operator has two rows"


@dataclass(frozen=True)
class Opsets:
    """The opsets of ai.onnx that TensorRT reads from version `since` on; `oldest` is the oldest official one."""

    since: Version
    newest: int
    source: str
    oldest: int = 9


OPSETS = (
    Opsets(OLDEST, 23, "onnx-tensorrt README.md, TensorRT 10.12: ONNX 1.18.0, whose newest opset is 23"),
    Opsets((10, 14), 24, "onnx-tensorrt docs/operators.md, TensorRT 10.14 and 11.1"),
    Opsets((11, 2), 25, "TensorRT documentation, ONNX Opset Guide, TensorRT 11.x"),
)
