"""Graphs that nobody exports: each declares an encoder's input and outputs, more or less, and does something else."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from tests.support.small_graphs import SIDE, WIDTH, value

FLOAT, INT64, UINT8, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.STRING
VIEWS = value("views", UINT8, ["views", SIDE, SIDE, WIDTH])
FEATURES = value("features", FLOAT, ["views", WIDTH])
OPSETS = helper.make_opsetid("", 20), helper.make_opsetid("own", 1)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """`node("Add", "x y", "z")`; an attribute's value is what onnx.helper takes."""
    return helper.make_node(operator, inputs.split(" "), outputs.split(" "), **attributes)


def numbers(name: str, *values: int, dims: Sequence[int] | None = None) -> TensorProto:
    return helper.make_tensor(name, INT64, [len(values)] if dims is None else dims, values)


MEANS = [node("Cast", "views", "values", to=FLOAT), node("ReduceMean", "values sides", "means", keepdims=0)]  # (N, 3)
ENCODE = [*MEANS, node("Identity", "means", "features")]
SIDES = numbers("sides", 1, 2)


def graph(
    nodes: Sequence[NodeProto],
    *initializers: TensorProto,
    inputs: Sequence[ValueInfoProto] = (VIEWS,),
    outputs: Sequence[ValueInfoProto] = (FEATURES,),
    ir: int = 9,
    opset: int = 20,
) -> ModelProto:
    made = helper.make_graph(nodes, "g", inputs, outputs, [SIDES, *initializers])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset), OPSETS[1]], ir_version=ir)


def encoder(*nodes: NodeProto, more: Sequence[TensorProto] = ()) -> ModelProto:
    """Nodes that make `features` of `means`, (N, 3)."""
    return graph([*MEANS, *nodes], *more)


def branch(*nodes: NodeProto, kind: int = FLOAT, more: Sequence[TensorProto] = ()) -> GraphProto:
    """What If runs; the last node gives its output."""
    return helper.make_graph(nodes, "branch", [], [value_of_any_shape(nodes[-1].output[0], kind)], more)


def value_of_any_shape(name: str, kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


def looping(trips: int) -> ModelProto:
    """Doubles the features as often as that."""
    taken = value("trip", INT64, []), value("before", TensorProto.BOOL, []), value_of_any_shape("x")
    given = value("after", TensorProto.BOOL, []), value_of_any_shape("doubled")
    nodes = [node("Identity", "before", "after"), node("Add", "x x", "doubled")]
    loop = node("Loop", "trips go means", "features", body=helper.make_graph(nodes, "body", taken, given))
    go = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    return encoder(loop, more=[numbers("trips", trips, dims=[]), go])


def allocating(*sides: int) -> ModelProto:
    """Adds the mean of that many zeros, which are made when it runs: their number comes with the batch's."""
    return encoder(
        node("Shape", "means", "shape", start=1),  # (1,): 3, which is no constant to whoever does not run it
        node("Sub", "shape shape", "zero"),
        node("Add", "sides_of zero", "large"),
        node("ConstantOfShape", "large", "zeros"),
        node("ReduceMean", "zeros", "nothing", keepdims=0),
        node("Add", "means nothing", "features"),
        more=[numbers("sides_of", *sides)],
    )


def nested(depth: int) -> ModelProto:
    """If in If in If."""
    inner = branch(node("Identity", "means", "out"))
    for _ in range(depth):
        other = branch(node("Identity", "means", "out"))
        inner = branch(node("If", "yes", "out", then_branch=inner, else_branch=other))
    both = {"then_branch": inner, "else_branch": branch(node("Neg", "means", "out"))}
    return encoder(*condition("GreaterOrEqual"), node("If", "yes", "features", **both))


def condition(operator: str) -> list[NodeProto]:
    """`yes`, of which nobody knows before it runs whether it is true."""
    return [node("Size", "means", "size"), node("Sub", "size size", "none"), node(operator, "size none", "yes")]


def functions(count: int, *, recursive: bool = False) -> ModelProto:
    """Functions of which each calls the one before twice: 2^count nodes."""
    made = encoder(NodeProto(op_type=f"F{count}", domain="own", input=["means"], output=["features"]))
    for index in range(count + 1):
        called = f"F{index if recursive else index - 1}"
        calls = [helper.make_node(called, [a], [b], domain="own") for a, b in ("xh", "hy")]
        body = calls if index or recursive else [node("Identity", "x", "y")]
        made.functions.append(helper.make_function("own", f"F{index}", ["x"], ["y"], body, list(OPSETS)))
    return made


def without_opsets() -> ModelProto:
    made = graph(ENCODE)
    made.ClearField("opset_import")
    return made


def optional() -> ModelProto:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["views", WIDTH]))
    return graph([*MEANS, node("Optional", "means", "features")], outputs=[helper.make_value_info("features", kind)])


def sequence() -> ModelProto:
    made = helper.make_tensor_sequence_value_info("features", FLOAT, None)
    return graph([*MEANS, node("SequenceConstruct", "means", "features")], outputs=[made])


def empty_fields(count: int) -> bytes:
    """A graph of that many nodes of two bytes each."""
    content = b"\x0a\x00" * count
    return b"\x3a" + onnx.StringStringEntryProto(key="x" * len(content)).SerializeToString()[1:5] + content


WHOLE = graph(ENCODE).SerializeToString()

# What is found out when the graph runs, and what the error says then.
FAILS_WHILE_RUNNING: dict[str, tuple[ModelProto, str]] = {
    "a Reshape that does not fit": (
        encoder(
            node("Shape", "means", "shape"),
            node("Add", "shape five", "other"),
            node("Reshape", "means other", "features"),
            more=[numbers("five", 5)],
        ),
        "fails in ONNX Runtime: .*Reshape",
    ),
    "a TopK of too many": (
        encoder(
            node("Shape", "means", "shape", end=1),
            node("Mul", "shape hundred", "k"),
            node("TopK", "means k", "features i"),
            more=[numbers("hundred", 100)],
        ),
        "fails in ONNX Runtime: .*TopK",
    ),
    "a Scatter out of bounds": (
        encoder(
            node("ScatterElements", "means far one", "features"),
            more=[numbers("far", 10**9, dims=[1, 1]), helper.make_tensor("one", FLOAT, [1, 1], [1.0])],
        ),
        "fails in ONNX Runtime: .*ScatterElements",
    ),
    "a division by zero": (
        encoder(
            node("Cast", "means", "whole", to=INT64),
            node("Sub", "whole whole", "zero"),
            node("Div", "whole zero", "none"),
            node("Cast", "none", "features", to=FLOAT),
        ),
        "fails in ONNX Runtime: .*Div",
    ),
    "an If with a bad branch": (
        encoder(
            *condition("Less"),
            node(
                "If",
                "yes",
                "features",
                then_branch=branch(node("Identity", "means", "out")),
                else_branch=branch(node("Gather", "means far", "out"), more=[numbers("far", 10**6)]),
            ),
        ),
        "fails in ONNX Runtime: .*(If|Gather)",
    ),
    "zeros without end": (allocating(1 << 50), "fails in ONNX Runtime: .*ConstantOfShape"),
    "zeros beyond 64 bits": (allocating(1 << 40, 1 << 40), "fails in ONNX Runtime: .*ConstantOfShape"),
    "a negative number of zeros": (allocating(-3), "fails in ONNX Runtime: .*ConstantOfShape"),
    "too many rows": (
        encoder(node("Tile", "means times", "features"), more=[numbers("times", 3, 1)]),
        r"gives features as float32 \(6, 3\), which should be float32 \(2, 3\)",
    ),
    "twice the rows": (encoder(node("Concat", "means means", "features", axis=0)), r"as float32 \(4, 3\)"),
    "no rows": (
        encoder(node("Slice", "means zero zero", "features"), more=[numbers("zero", 0)]),
        r"gives features as float32 \(0, 3\)",
    ),
}

_NEGATIVE = value("views", UINT8, ["views", -8, SIDE, WIDTH])
_MANY = [value(f"i{index}", FLOAT, [1]) for index in range(10_000)]

# Whatever a run of these finds, it is an EngineError, or outputs as they should be.
STRANGE: dict[str, Callable[[], ModelProto | bytes]] = {
    "another rank": lambda: graph(ENCODE, outputs=[value("features", FLOAT, ["views", WIDTH, 1])]),
    "no shape": lambda: graph(ENCODE, outputs=[value_of_any_shape("features")]),
    "a scalar": lambda: graph([MEANS[0], node("ReduceMean", "values", "features", keepdims=0)]),
    "float64": lambda: graph(
        [*MEANS, node("Cast", "means", "features", to=TensorProto.DOUBLE)],
        outputs=[value("features", TensorProto.DOUBLE, ["views", WIDTH])],
    ),
    "no outputs": lambda: graph(ENCODE, outputs=[]),
    "no nodes": lambda: graph([]),
    "an output that is the input": lambda: graph([], outputs=[VIEWS]),
    "strings": lambda: graph([node("Cast", "views", "features", to=STRING)], outputs=[value("features", STRING, None)]),
    "a sequence": sequence,
    "an optional": optional,
    "a negative side": lambda: graph(ENCODE, inputs=[_NEGATIVE]),
    "a negative initializer": lambda: graph(ENCODE, TensorProto(name="w", data_type=FLOAT, dims=[-5])),
    "an initializer without data": lambda: graph(ENCODE, TensorProto(name="w", data_type=FLOAT, dims=[1 << 62] * 2)),
    "an initializer of no type": lambda: graph(ENCODE, TensorProto(name="w", data_type=99, dims=[1], raw_data=b"abcd")),
    "an initializer twice": lambda: graph(ENCODE, SIDES),
    "10,000 inputs": lambda: graph(ENCODE, inputs=[VIEWS, *_MANY]),
    "no name": lambda: graph([node("Cast", "views", "", to=FLOAT)]),
    "a name of control characters": lambda: graph(
        [*ENCODE, node("Identity", "features", "a\n\x1b[2Jb")], outputs=[value("a\n\x1b[2Jb", FLOAT, ["views", WIDTH])]
    ),
    "an operator of control characters": lambda: graph([node("Evil\n\x1b[31m", "views", "features")]),
    "a domain of its own": lambda: graph([node("Evil", "views", "features", domain="own")]),
    "an attribute that is missing": lambda: graph([node("Cast", "views", "features")]),
    "functions": lambda: functions(6),
    "a function that calls itself": lambda: functions(1, recursive=True),
    "opset 0": lambda: graph(ENCODE, opset=0),
    "opset 999": lambda: graph(ENCODE, opset=999),
    "opset -1": lambda: graph(ENCODE, opset=-1),
    "no opset": without_opsets,
    "IR version 0": lambda: graph(ENCODE, ir=0),
    "IR version 999": lambda: graph(ENCODE, ir=999),
    "IR version -1": lambda: graph(ENCODE, ir=-1),
    "a cycle": lambda: encoder(node("Add", "means b", "a"), node("Identity", "a", "b"), node("Neg", "a", "features")),
    "If in If": lambda: nested(15),
    "a loop backwards": lambda: looping(-5),
    "a loop": lambda: looping(5),
    "a scale that is no number": lambda: encoder(node("Elu", "means", "features", alpha=float("nan"))),
    "a Conv with a wide margin": lambda: graph([node("Conv", "values w", "features", pads=[2**40] * 4)]),
    "nothing": lambda: b"",
    "zeros": lambda: bytes(1000),
    "one byte": lambda: WHOLE[:1],
    "half": lambda: WHOLE[: len(WHOLE) // 2],
    "all but one byte": lambda: WHOLE[:-1],
}
