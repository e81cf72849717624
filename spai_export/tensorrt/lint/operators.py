"""What TensorRT 10.12 to 11.x imports from ONNX: one row an operator, each with where that is written.

The operators are those that exports of transformers and ResNets can hold, and those that people expect and miss.
onnx-tensorrt's docs/operators.md says the same of them at 10.14 and at 11.1; its docs/Changelog.md, and the release
notes of TensorRT 11.2 to 11.4, name what changed before and after. A rule stands here only if a source states it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx import TensorProto

Version = tuple[int, int]

FLOAT = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
INTEGER = frozenset({TensorProto.INT32, TensorProto.INT64})
NUMBER = FLOAT | INTEGER
BOOL = frozenset({TensorProto.BOOL})
ANY = NUMBER | BOOL
QUANTIZED = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1})
CAST = ANY | {TensorProto.UINT8}

FIRST = range(1)
EVERY = range(2**31)

OPERATORS = "onnx-tensorrt docs/operators.md, TensorRT 10.14 and 11.1"
CHANGELOG = "onnx-tensorrt docs/Changelog.md"
IMPORTERS = "onnx-tensorrt onnxOpImporters.cpp"
CHECKERS = "onnx-tensorrt onnxOpCheckers.cpp"
POOLS = f"{OPERATORS}; onnx-tensorrt importerUtils.cpp, poolingHelper: along one axis too"
OLDEST = (10, 1)  # the oldest operators.md that was read; what it holds already was there in 10.12


@dataclass(frozen=True)
class Row:
    """How TensorRT imports one operator of the domain ai.onnx.

    :param since: first TensorRT that imports it, or None
    :param instead: what to do where it is not imported
    :param types: element types that the inputs in `typed` may have, `results` those of the first output; None is any
    :param constant: inputs, by index, that must be initializers, with their names
    :param zero: inputs that must be 0 where they are known
    :param ranks: ranks that an input may have
    :param last_axis: largest last axis of an input
    :param attributes: values that an attribute, or each item of it, may have; none at all where there are none
    :param inputs: how many inputs it takes at most, `outputs` how many outputs it gives
    """

    operator: str
    source: str
    since: Version | None = OLDEST
    instead: str = ""
    types: frozenset[int] | None = None
    typed: range = FIRST
    results: frozenset[int] | None = None
    constant: Mapping[int, str] = field(default_factory=dict)
    zero: Mapping[int, str] = field(default_factory=dict)
    ranks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    last_axis: Mapping[int, int] = field(default_factory=dict)
    attributes: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    inputs: int | None = None
    outputs: int | None = None


def _alike(operators: str, types: frozenset[int] | None = None, typed: range = FIRST) -> Iterator[Row]:
    return (Row(operator, OPERATORS, types=types, typed=typed) for operator in operators.split())


def _missing(operators: str) -> Iterator[Row]:
    return (Row(operator, OPERATORS, since=None) for operator in operators.split())


def _reductions() -> Iterator[Row]:
    names = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    return (Row(f"Reduce{name}", OPERATORS, types=NUMBER, constant={1: "axes"}) for name in names)


_ROWS = (
    # element by element
    *_alike("Abs Mod Neg Relu Shrink Sign", NUMBER),
    *_alike("Add Sub Mul Div Max Min Sum", NUMBER, EVERY),
    *_alike("Equal Greater GreaterOrEqual Less LessOrEqual", NUMBER, EVERY),
    *_alike("And Or Xor Not", BOOL, EVERY),
    *_alike("Ceil Cos Erf Exp Floor IsInf Log Reciprocal Round Sin Sqrt Tan", FLOAT),
    *_alike("Celu Elu HardSigmoid HardSwish LeakyRelu Selu Sigmoid Softplus Softsign Tanh ThresholdedRelu", FLOAT),
    *_alike("Gelu LogSoftmax Softmax", FLOAT),
    *_alike("PRelu", FLOAT, range(2)),
    *_alike("Where", ANY, range(1, 3)),
    Row("Clip", f"{IMPORTERS}, Clip, TensorRT 10.1: floats, INT32 and INT64", types=NUMBER),
    Row("Pow", f"{OPERATORS}; {CHANGELOG}, 10.8 and 10.12: integer exponents and bases", types=NUMBER, typed=range(2)),
    Row("Swish", f"{OPERATORS}; TensorRT CHANGELOG.md, 11.0", since=(11, 0), types=FLOAT),
    # products
    *_alike("MatMul", FLOAT, range(2)),
    *_alike("Conv ConvTranspose", FLOAT, range(3)),
    Row("Einsum", f"{OPERATORS}; {CHANGELOG}, 10.12: any equation", types=FLOAT, typed=EVERY),
    Row("Gemm", f"{OPERATORS}; {IMPORTERS}, Gemm: 2D inputs", types=FLOAT, typed=range(3), ranks={0: (2,), 1: (2,)}),
    Row(
        "Attention",
        f"{OPERATORS}; {CHANGELOG}, 10.14; TensorRT documentation, Operators, Attention; "
        "NVIDIA/TensorRT issues #2981 and #4705: heads of up to 256 have a fused kernel, others fail to build",
        since=(10, 14),
        instead="export with --attention plain",
        types=FLOAT,
        typed=range(3),
        ranks=dict.fromkeys(range(4), (4,)),
        last_axis={0: 256},
        attributes={"softcap": (0.0,), "qk_matmul_output_mode": (0,)},
        inputs=4,
        outputs=1,
    ),
    # normalization and pooling
    *_alike("GlobalAveragePool GlobalMaxPool GroupNormalization InstanceNormalization LpNormalization", FLOAT),
    Row("LayerNormalization", OPERATORS, types=FLOAT, outputs=1),
    Row(
        "BatchNormalization",
        f"{OPERATORS}; {CHECKERS}, BatchNormalization: inference, one output",
        types=FLOAT,
        attributes={"training_mode": (0,)},
        outputs=1,
    ),
    Row("RMSNormalization", f"{OPERATORS}; {CHANGELOG}, 10.15", since=(10, 15), types=FLOAT),
    Row("RotaryEmbedding", f"{OPERATORS}; {CHANGELOG}, 10.15", since=(10, 15), types=FLOAT),
    Row("AveragePool", POOLS, types=FLOAT, ranks={0: (3, 4, 5)}, attributes={"dilations": (1,)}),
    Row("MaxPool", POOLS, types=FLOAT, ranks={0: (3, 4, 5)}, attributes={"dilations": (1,)}, outputs=1),
    # reductions and choices
    *_reductions(),
    *_alike("ArgMax ArgMin Range", NUMBER),
    Row("CumSum", OPERATORS, types=FLOAT, constant={1: "axis"}),
    Row("TopK", OPERATORS, types=NUMBER, attributes={"sorted": (1,)}),
    Row("OneHot", OPERATORS, constant={1: "depth"}),
    # form
    *_alike("Concat", ANY, EVERY),
    *_alike("Expand Flatten Gather GatherElements GatherND Identity Reshape", ANY),
    *_alike("Shape Size Slice Split Tile Transpose Trilu", ANY),
    *_alike("DepthToSpace Pad ScatterElements SpaceToDepth", NUMBER),
    Row("ScatterND", OPERATORS, types=NUMBER, attributes={"reduction": ("none",)}),
    Row("Squeeze", OPERATORS, types=ANY, constant={1: "axes"}),
    Row("Unsqueeze", OPERATORS, types=ANY, constant={1: "axes"}),
    Row(
        "Resize",
        f"{OPERATORS}; {CHECKERS}, Resize: cubic too",
        types=FLOAT,
        attributes={
            "antialias": (0,),
            "coordinate_transformation_mode": (
                "half_pixel",
                "pytorch_half_pixel",
                "tf_half_pixel_for_nn",
                "asymmetric",
                "align_corners",
            ),
            "keep_aspect_ratio_policy": ("stretch",),
            "mode": ("nearest", "linear", "cubic"),
            "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        },
    ),
    # constants and types
    Row("Cast", OPERATORS, types=CAST, results=CAST),
    Row("CastLike", OPERATORS, types=CAST, results=CAST),
    Row("Constant", OPERATORS, attributes={"sparse_value": (), "value_string": (), "value_strings": ()}),
    Row("ConstantOfShape", OPERATORS, results=ANY | QUANTIZED - {TensorProto.INT8}),
    Row("Dropout", OPERATORS, types=FLOAT, constant={2: "training_mode"}, zero={2: "training_mode"}),
    Row("QuantizeLinear", OPERATORS, types=FLOAT, results=QUANTIZED, zero={2: "y_zero_point"}),
    Row("DequantizeLinear", OPERATORS, types=QUANTIZED, results=FLOAT, zero={2: "x_zero_point"}),
    # graphs in nodes
    *_alike("If Loop Scan"),  # the nodes in them are checked too
    # transforms
    Row(
        "STFT",
        f"{OPERATORS}; {CHANGELOG}, 10.5",
        since=(10, 5),
        types=frozenset({TensorProto.FLOAT}),
        constant={1: "frame_step", 2: "window"},
    ),
    Row(
        "DFT",
        f"{OPERATORS}; TensorRT 11.2.1 Release Notes: a cuFFT plugin",
        since=(11, 2),
        instead="write it as a product with the matrix of the transform",
    ),
    # known, and not imported
    *_missing("AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress"),
    *_missing("ConvInteger Det DynamicQuantizeLinear MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix Multinomial"),
    *_missing("Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul SplitToSequence Unique"),
    *_missing("SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap"),
)

TABLE: Mapping[str, Row] = {row.operator: row for row in _ROWS}
assert len(TABLE) == len(_ROWS), "an operator has two rows"


@dataclass(frozen=True)
class Opsets:
    """The opsets of ai.onnx that a TensorRT reads, from `since` on; `oldest` is the official end of the past."""

    since: Version
    newest: int
    source: str
    oldest: int = 9


OPSETS = (
    Opsets((10, 12), 23, "onnx-tensorrt README.md, TensorRT 10.12: ONNX 1.18.0, whose newest opset is 23"),
    Opsets((10, 14), 24, OPERATORS),
    Opsets((11, 2), 25, "TensorRT documentation, ONNX Opset Guide, TensorRT 11.x"),
)

DOMAINS_SOURCE = "onnx-tensorrt ModelImporter.cpp: what has no importer of its own is looked up among plugins"
UINT8_SOURCE = f"tensorrt.DataType.UINT8 in the Python bindings 10.12 and 11.4; {OPERATORS}"
FLOAT64_SOURCE = f"{OPERATORS}: DOUBLE is cast down to FLOAT"
MIXED_SOURCE = "ONNX operator schemas; TensorRT documentation, Operators, ElementWise: both inputs of type T1"
RANK_SOURCE = "TensorRT NvInferRuntimeBase.h, Dims::MAX_DIMS, 10.12 and 11.1"
MAX_RANK = 8
