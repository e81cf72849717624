"""NVIDIA's own parser and builder say of each row of the table what the lint says: what passes builds, and no more.

Releases and opsets are beyond them, since they are of one release; so is uint8 between Q and DQ, which TensorRT for RTX
takes and TensorRT does not by its documentation.
"""

import re
from collections.abc import Iterator
from dataclasses import fields

import onnx
import pytest
from onnx import TensorProto, helper

from spai_export.tensorrt.lint import lint
from spai_export.tensorrt.lint.operators import TABLE, Row
from tests.support.operator_graphs import ELEMENTS, NEW, TEXTS, graph_of, model
from tests.support.real_tensorrt import Verdict, verdicts

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed; there is none but for Linux x86-64")

IMAGES = "g (float[N,1,8,8] x) => (float[N,1,a,b] y)"
HALF = "float16[N,2,5,64]"
ATTENTION = f"g ({HALF} q, {HALF} k, {HALF} v) => ({HALF} y)"
SCALED = "<float[4] s = {1, 1, 0.5, 0.5}>"
NORMALISED = "g (float[N,4,3,3] x, float[4] s, float[4] b, float[4] m, float[4] v) => (float[N,4,3,3] y)"
# axes that no initializer holds
COMPUTED = "g (float[N,4] x, float[K] z) => (float[a,b] y) <int64[1] i = {0}> { s = Shape (z) a = Gather (s, i)"


def resized(*attributes: str) -> list[str]:
    return [f"{IMAGES} {SCALED} {{ y = Resize <{one}> (x, , s) }}" for one in attributes]


def attended(*attributes: str) -> list[str]:
    return [f"{ATTENTION} {{ y = Attention <{one}> (q, k, v) }}" for one in attributes]


def quantized(zero: str) -> str:
    return (
        f"g (float[N,4] x) => (float[N,4] y) <float s = {{0.5}}, int8 z = {{{zero}}}>"
        "{ q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"
    )


def heads(*widths: int) -> list[str]:
    return [ATTENTION.replace("64", str(width)) + " { y = Attention (q, k, v) }" for width in widths]


def pooled(operator: str) -> list[str]:
    """Along one axis, three and four."""
    texts = [
        "g (float[N,1,8] x) => (float[N,1,a] y) { y = Pool <kernel_shape = [2]> (x) }",
        "g (float[N,1,8,8,8] x) => (float[N,1,a,b,c] y) { y = Pool <kernel_shape = [2, 2, 2]> (x) }",
        "g (float[N,1,8,8,8,8] x) => (float[N,1,a,b,c,d] y) { y = Pool <kernel_shape = [2, 2, 2, 2]> (x) }",
    ]
    return [text.replace("Pool", operator) for text in texts]


COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric")
MODES = (f'mode = "{m}", coordinate_transformation_mode = "{c}"' for m in ("linear", "cubic") for c in COORDINATES)

# Operator and field of its row → graphs, some of which break the rule.
RULES: dict[tuple[str, str], list[str]] = {
    **{
        (operator, "constant"): [f"{COMPUTED} y = {operator} (x, a) }}"]
        for operator in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Unsqueeze")
    },
    ("Squeeze", "constant"): [COMPUTED.replace("[N,4]", "[N,1,4]") + " y = Squeeze (x, a) }"],
    ("CumSum", "constant"): [COMPUTED.replace("int64[1] i", "int64 i") + " y = CumSum (x, a) }"],
    ("QuantizeLinear", "zero"): [quantized("0"), quantized("3")],
    ("DequantizeLinear", "zero"): [quantized("-1")],
    ("Gemm", "ranks"): ["g (float[N,4,4] x, float[4,4] w) => (float[N,4,4] y) { y = Gemm (x, w) }"],
    ("AveragePool", "ranks"): pooled("AveragePool"),
    ("MaxPool", "ranks"): pooled("MaxPool"),
    ("Attention", "last_axis"): heads(8, 9, 12, 16, 72, 100, 256, 257, 320),
    ("Attention", "attributes"): attended("scale = 0.3", "is_causal = 1", "softcap = 30.0", "softmax_precision = 1"),
    ("Attention", "inputs"): [
        f"g ({HALF} q, {HALF} k, {HALF} v, {HALF} l, {HALF} w) => ({HALF} y) {{ y = Attention (q, k, v, , l, w) }}",
        f"g ({HALF} q, {HALF} k, {HALF} v, bool[N,2,5,5] m) => ({HALF} y) {{ y = Attention (q, k, v, m) }}",
    ],
    ("Attention", "outputs"): [
        ATTENTION.replace(" y)", " y, float16[N,2,5,5] s)") + " { y, k1, v1, s = Attention (q, k, v) }"
    ],
    ("LayerNormalization", "outputs"): [
        "g (float[N,4] x, float[4] s) => (float[N,4] y, float[N,1] m) { y, m = LayerNormalization (x, s) }"
    ],
    **{
        ("BatchNormalization", field): [  # which training has and inference has not
            f"{NORMALISED} {{ y, p, q = BatchNormalization <training_mode = 1> (x, s, b, m, v) }}",
            f"{NORMALISED} {{ y = BatchNormalization <epsilon = 0.1> (x, s, b, m, v) }}",
        ]
        for field in ("attributes", "outputs")
    },
    **{
        (operator, "attributes"): [
            f"{IMAGES} {{ y = {operator} <kernel_shape = [2, 2], {one}> (x) }}"
            for one in ("dilations = [2, 1]", "dilations = [1, 1]", "ceil_mode = 1, strides = [3, 3]")
        ]
        for operator in ("AveragePool", "MaxPool")
    },
    ("MaxPool", "outputs"): [
        "g (float[N,4,8,8] x) => (float[N,4,7,7] y, int64[N,4,7,7] i) { y, i = MaxPool <kernel_shape = [2, 2]> (x) }"
    ],
    ("ScatterElements", "attributes"): [
        "g (float[2,4] x, float[2,1] v) => (float[2,4] y) <int64[2,1] i = {0, 2}>"
        f'{{ y = ScatterElements <axis = 1, reduction = "{one}"> (x, i, v) }}'
        for one in ("none", "add", "max")
    ],
    ("Resize", "attributes"): resized(
        'antialias = 1, mode = "linear"',
        'keep_aspect_ratio_policy = "not_larger"',
        'keep_aspect_ratio_policy = "stretch"',
        *MODES,
        'coordinate_transformation_mode = "align_corners"',
        *(f'nearest_mode = "{one}"' for one in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    ),
}
OTHERS = {
    "rank 8": "g (float[N,1,1,1] x) => (float[N,1,1,1,1,1,1,1] y) <int64[4] a = {4, 5, 6, 7}> { y = Unsqueeze (x, a) }",
    "rank 9": "g (float[N,1,1,1,1] x) => (float[N,1,1,1,1,1,1,1,1] y) <int64[4] a = {5, 6, 7, 8}>"
    "{ y = Unsqueeze (x, a) }",
    "uint8 within": "g (float[N] x) => (float[N] y) { t = Cast <to = 2> (x) y = Cast <to = 1> (t) }",
    "uint8 at the ends": "g (uint8[N] x) => (uint8[N] y) { a = Cast <to = 10> (x) b = Neg (a) y = Cast <to = 2> (b) }",
    "int8 by channel": "g (float[N,2] x) => (float[N,2] y) <float[2] s = {0.5, 0.25}, int8[2] z = {0, 0}>"
    "{ q = QuantizeLinear <axis = 1> (x, s, z) y = DequantizeLinear <axis = 1> (q, s, z) }",
    "a form that is computed": "g (float[N,4] x, float[N,2,2] z) => (float[N,2,2] y)"
    "{ s = Shape (z) y = Reshape (x, s) }",
    "an exponent of another type": "g (float16[N] x) => (float16[N] y) <float two = {2}> { y = Pow (x, two) }",
    "all axes": "g (float[N,4] x) => (float y) { y = ReduceMean <keepdims = 0> (x) }",
}


def cases() -> Iterator[tuple[str, onnx.ModelProto]]:
    for operator, text in TEXTS.items():
        for element, kind in ELEMENTS.items():
            yield f"{operator} of {kind}", graph_of(operator, element)
        if re.search(r"\bU\b", text):
            yield f"{operator} of two types", graph_of(operator, TensorProto.FLOAT16, TensorProto.FLOAT)
    for kind in ELEMENTS.values():
        for to, other in ELEMENTS.items():
            text = f"g ({kind}[N] x) => ({other}[N] y) {{ y = Cast <to = {to}> (x) }}"
            yield f"Cast of {kind} to {other}", model(text)
    for (operator, field), texts in RULES.items():
        for index, text in enumerate(texts):
            yield f"{operator} {field} {index}", model(text, 23 if operator in NEW else 20)
    yield from ((name, model(text)) for name, text in OTHERS.items())
    yield "fp8", fp8()


def fp8() -> onnx.ModelProto:
    graph = model("g (float16[N] x) => (float16[N] y) { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }")
    scale = helper.make_tensor("s", TensorProto.FLOAT16, [], [0.5])
    graph.graph.initializer.extend([scale, helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])])
    return graph


CASES = dict(cases())
FLOAT64 = model("g (double[N] x) => (double[N] y) { y = Neg (x) }")
CRASH = model("g (float16[N,2,5,64] q) => (float16[N,2,5,64] y) { y = Attention (q, q, q) }", 23)


@pytest.fixture(scope="module")
def said() -> dict[str, Verdict]:
    """Of all at once, since TensorRT takes longer to start than to build most of them."""
    graphs = {**CASES, "float64": FLOAT64, "crash": CRASH, "last": FLOAT64}
    return dict(zip(graphs, verdicts([*graphs.values()]), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_lint_says_what_tensorrt_says(name: str, said: dict[str, Verdict]) -> None:
    findings = [str(finding) for finding in lint(CASES[name], "11.4")]
    assert said[name].built is not bool(findings), (findings, said[name].said)
    assert "optimization profile" not in said[name].said.lower(), "it was asked wrongly"


def test_float64_builds_as_another_type(said: dict[str, Verdict]) -> None:
    """So the lint refuses it: the graph would say what the plan does not do."""
    assert [finding.rule for finding in lint(FLOAT64)] == ["is of float64, which TensorRT computes in float32"]
    assert said["float64"] == Verdict(True, "", ["FLOAT"])


def test_a_graph_that_ends_its_process_spoils_no_other(said: dict[str, Verdict]) -> None:
    """TensorRT for RTX 1.7 ends on that one, and whoever asks goes on behind it."""
    assert said["crash"].built or said["crash"].said.startswith("ended by SIG")
    assert list(said) == [*CASES, "float64", "crash", "last"]
    assert said["last"].built


def test_every_row_and_rule_is_asked() -> None:
    """Releases aside, of which documentation alone knows; some graph breaks each rule."""
    assert TEXTS.keys() == TABLE.keys()
    default, others = Row("", frozenset()), {"operator", "types", "typed", "mixes", "since", "instead"}
    names = {field.name for field in fields(Row)} - others
    rules = {
        (row.operator, name) for row in TABLE.values() for name in names if getattr(row, name) != getattr(default, name)
    }
    assert rules == RULES.keys()
    for (operator, field), texts in RULES.items():
        assert any(lint(CASES[f"{operator} {field} {index}"], "11.4") for index in range(len(texts))), (operator, field)
