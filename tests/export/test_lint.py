"""What TensorRT does not import is found, each thing with its sentence, and what the project exports is free of it."""

import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from spai_export.choices import Precision
from spai_export.onnx import FUSED_OPSET, OPSET, export_encoder
from spai_export.precision import cast
from spai_export.tensorrt.lint import VERSIONS, Finding, LintError, check, lint, unknown
from spai_export.tensorrt.lint.operators import OPSETS, TABLE, Row
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.support.operator_graphs import model


def sentences(graph: onnx.ModelProto, version: str = "11.4") -> list[str]:
    return [str(finding) for finding in lint(graph, version)]


# ------------------------------------------------------------------------------------------------ what is exported


@pytest.mark.parametrize("version", [*VERSIONS, "10.13", "10.14", "11.0"])
def test_exports_pass(golden_detector: Path, tiny_detector: Path, version: str) -> None:
    graphs = [folder / name for folder in (golden_detector, tiny_detector) for name in ("encoder.onnx", "head.onnx")]
    assert [lint(graph, version) for graph in graphs] == [[]] * 4
    assert [unknown(onnx.load(graph)) for graph in graphs] == [[]] * 4


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16])
def test_every_precision(tiny_config: SPAIConfig, tmp_path: Path, precision: Precision, fused: bool) -> None:
    """Both formulations of attention, the fused one from the TensorRT on that has it, and in fp32 in none."""
    encoder = SPAI(replace(tiny_config, width=32, depth=1, blocks=(0,))).encoder
    path = tmp_path / "encoder.onnx"
    shape = tiny_config.tile_size, tiny_config.tile_size
    export_encoder(cast(SPEC, encoder, precision, fused=fused), shape, path, FUSED_OPSET if fused else OPSET)
    assert unknown(onnx.load(path)) == []
    assert [finding.operator for finding in lint(path, "10.12")] == ["Attention"] * fused
    single = fused and precision is Precision.FP32
    for version in ("10.14", "11.4"):
        found = ["Attention"] * 3 if single else []
        assert [finding.operator for finding in lint(path, version)] == found


# ----------------------------------------------------------------------------------------------- what must be found

# What of these TensorRT really refuses, and what it takes, is test_lint_real.py's to say; here are the sentences.
WRONG = {
    "uint8 into Transpose": (
        "g (uint8[N,4] x) => (float[4,N] y) { [turn] t = Transpose <perm = [1, 0]> (x) [cast] y = Cast <to = 1> (t) }",
        [
            "Transpose (turn): gives uint8, which TensorRT has only as a network input or output",
            "Transpose (turn): input 0 is uint8, and TensorRT takes bfloat16, bool, float16, float32, int32 or int64",
        ],
    ),
    "float64": (
        "g (float[N] x) => (float[N] y) { d = Cast <to = 11> (x) e = Neg (d) y = Cast <to = 1> (e) }",
        [f"{node}: is of float64, which TensorRT computes in float32" for node in ("Cast (d)", "Neg (e)", "Cast (y)")],
    ),
    "rank 9": (
        "g (float[1] x) => (float[1,1,1,1,1,1,1,1,1] y)"
        "<int64[8] axes = {0, 1, 2, 3, 4, 5, 6, 7}> { y = Unsqueeze (x, axes) }",
        ["Unsqueeze (y): gives a tensor of rank 9, and TensorRT has no rank above 8"],
    ),
    "Gemm of rank 3": (
        "g (float[N,4,4] x, float[4,4] w) => (float[N,4,4] y) { y = Gemm (x, w) }",
        ["Gemm (y): its input is of rank 3, and TensorRT takes rank 2"],
    ),
    "statistics of LayerNormalization": (
        "g (float[N,4] x, float[4] s) => (float[N,4] y, float[N,1] m) { y, m = LayerNormalization (x, s) }",
        ["LayerNormalization (y): gives 2 tensors, and in TensorRT it gives 1 at most"],
    ),
    "types mixed in MatMul": (
        "g (float16[N,4] a) => (float16[N,4] y) <float[4,4] w = {}> { y = MatMul (a, w) }",
        ["MatMul (y): mixes float16 and float32, and TensorRT casts nothing by itself"],
    ),
    "types mixed in Concat": (
        "g (int32[N] a, int32[N] b, int64[N] c) => (int32[M] y) { y = Concat <axis = 0> (a, b, c) }",
        ["Concat (y): mixes int32 and int64, and TensorRT casts nothing by itself"],
    ),
    "axes of a reduction that are computed": (
        "g (float[N,4] x, int64[1] a) => (float[N,1] y) { y = ReduceMean (x, a) }",
        ["ReduceMean (y): axes is computed, and TensorRT wants an initializer"],
    ),
    "a zero point": (
        "g (float[N] x) => (float[N] y) <float s = {0.5}, int8 z = {3}>"
        "{ q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        [
            "QuantizeLinear (q): y_zero_point is not 0, and TensorRT wants 0",
            "DequantizeLinear (y): x_zero_point is not 0, and TensorRT wants 0",
        ],
    ),
    "quantization to uint8": (
        "g (float[N] x) => (float[N] y) <float s = {0.5}, uint8 z = {0}>"
        "{ q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        [
            "QuantizeLinear (q): gives uint8, which TensorRT has only as a network input or output",
            "DequantizeLinear (y): input 0 is uint8, and TensorRT takes float8e4m3fn or int8",
        ],
    ),
    "dilated pooling": (
        "g (float[N,1,8,8] x) => (float[N,1,6,6] y){ y = MaxPool <kernel_shape = [2, 2], dilations = [2, 1]> (x) }",
        ["MaxPool (y): dilations is 2, 1, and TensorRT takes 1"],
    ),
    "antialiasing": (
        "g (float[N,1,8,8] x) => (float[N,1,4,4] y) <float[4] s = {1, 1, 0.5, 0.5}>"
        '{ y = Resize <antialias = 1, mode = "cubic", keep_aspect_ratio_policy = "not_larger"> (x, , s) }',
        [
            "Resize (y): antialias is 1, and TensorRT takes 0",
            "Resize (y): keep_aspect_ratio_policy is not_larger, and TensorRT takes stretch",
        ],
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("text", "found"), WRONG.values(), ids=WRONG)
def test_what_is_not_imported_is_found(text: str, found: list[str], version: str) -> None:
    assert sentences(model(text), version) == found


QKV = "{kind}[N,2,5,{head}] q, {kind}[N,2,5,{head}] k, {kind}[N,2,5,{head}] v"
ATTENTION = f"g ({QKV}) => ({{kind}}[N,2,5,{{head}}] y) {{{{ [mha] y = Attention {{attributes}} (q, k, v) }}}}"
PLAIN = "export with --attention plain"


def attention(head: int = 64, attributes: str = "", kind: str = "float16") -> onnx.ModelProto:
    return model(ATTENTION.format(kind=kind, head=head, attributes=attributes), opset=23)


@pytest.mark.parametrize(("version", "imported"), [("10.12", False), ("10.13", False), ("10.14", True), ("11.4", True)])
def test_attention_came_with_10_14(version: str, imported: bool) -> None:
    assert sentences(attention(), version) == ([] if imported else [f"Attention (mha): imported since 10.14; {PLAIN}"])


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (attention(8), "its input ends in an axis of 8, and TensorRT takes 9 to 256"),
        (attention(512), "its input ends in an axis of 512, and TensorRT takes 9 to 256"),
        (attention(kind="float"), "input 0 is float32, and TensorRT takes bfloat16 or float16"),
        (attention(64, "<softcap = 30.0>"), "softcap is 30.0, and TensorRT takes 0.0"),
        (
            attention(64, "<softmax_precision = 1>"),
            "has the attribute softmax_precision, which TensorRT does not take",
        ),
        (
            model(
                "g (float[N,2,5,8] q) => (float[N,2,5,8] y, float[N,2,9,8] k, float[N,2,9,8] v)"
                "{ y, k, v = Attention (q, q, q, , q, q) }",
                23,
            ),
            "takes 6 tensors, and in TensorRT it takes 4 at most",
        ),
    ],
)
def test_attention_has_its_limits(graph: onnx.ModelProto, found: str) -> None:
    assert f"{found}; {PLAIN}" in [finding.rule for finding in lint(graph, "10.14")]


@pytest.mark.parametrize(
    ("opset", "version", "read"),
    [
        (8, "10.12", "9 to 23"),
        (9, "10.12", None),
        (23, "10.12", None),
        (24, "10.13", "9 to 23"),
        (24, "10.14", None),
        (25, "11.1", "9 to 24"),
        (25, "11.4", None),
        (26, "11.4", "9 to 25"),
    ],
)
def test_opsets(opset: int, version: str, read: str | None) -> None:
    found = [f"ai.onnx: the graph is of opset {opset}, and TensorRT reads {read}"] if read else []
    assert sentences(model("g (float[N] x) => (float[N] y) { y = Relu (x) }", opset), version) == found


# ------------------------------------------------------------------------------------- what the table does not speak of

OTHERS = "g (float[N,4] x) => (float[N,4] y) { a = Softsign (x) b = here.FastGelu (a) c = Softsign (b) y = Add (x, c) }"


def test_what_the_table_does_not_speak_of_is_no_finding(tmp_path: Path) -> None:
    """What TensorRT says of it, a build tells; that of another domain may be in a plugin."""
    graph = model(OTHERS, domain="here")
    assert (unknown(graph), sentences(graph)) == (["Softsign", "FastGelu"], [])
    onnx.save(graph, tmp_path / "encoder.onnx")
    said = "encoder.onnx holds what was not tried with TensorRT, and may not build there: Softsign, FastGelu"
    assert check(tmp_path / "encoder.onnx") == [said]


def test_a_tensor_of_unknown_type_is_given_the_benefit_of_the_doubt() -> None:
    graph = model("g (float16[N] x) => (float16[N] y) { t = here.Thing (x) y = Add (x, t) }", domain="here")
    assert (unknown(graph), sentences(graph)) == (["Thing"], [])


def test_large_weights_keep_their_type() -> None:
    graph = model("g (float16[N,64] x) => (float16[N,64] y) { y = MatMul (x, w) }")
    graph.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [64, 64], bytes(4 * 64 * 64), raw=True))
    before = graph.SerializeToString()
    assert sentences(graph) == ["MatMul (y): mixes float16 and float32, and TensorRT casts nothing by itself"]
    assert graph.SerializeToString() == before


# --------------------------------------------------------------------------------------------------------- the edge


def test_check_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    onnx.save(attention(), str(path))
    expected = (
        "encoder.onnx has what TensorRT 10.12 does not import: "
        "Attention (mha): imported since 10.14; export with --attention plain"
    )
    with pytest.raises(LintError, match=f"^{re.escape(expected)}$"):
        check(path)
    assert check(path, ["10.14", "11.4"]) == []


def test_check_counts_what_it_does_not_name(tmp_path: Path) -> None:
    onnx.save(model(WRONG["float64"][0]), str(tmp_path / "x.onnx"))
    with pytest.raises(LintError, match=r"10\.12 does not import: Cast \(d\): .* float32 \(and 2 more\)$"):
        check(tmp_path / "x.onnx")


def test_versions_are_read_however_they_are_given() -> None:
    for version in ("10.12", "10.12.0.36", (10, 12)):
        assert len(lint(attention(), version)) == 1
    with pytest.raises(AssertionError, match=r"begins at TensorRT 10\.12"):
        lint(attention(), "10.9")


def test_a_finding_without_a_node() -> None:
    assert str(Finding("", "ai.onnx", "is old")) == "ai.onnx: is old"


# -------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_rows_speak_of_onnx(row: Row) -> None:
    """ONNX's own schema has the operator, its inputs and attributes by these names, and defaults that would pass.

    A row that allowed none of the types that ONNX has for an input would refuse every graph.
    """
    schema = onnx.defs.get_schema(row.operator)
    for index, name in {**row.constant, **row.zero}.items():
        assert schema.inputs[index].name == name
    for name, allowed in row.attributes.items():
        default = schema.attributes[name].default_value
        value = helper.get_attribute_value(default) if default.type else None
        assert value is None or (value.decode() if isinstance(value, bytes) else value) in allowed
    types = {f"tensor({TensorProto.DataType.Name(element).lower()})" for element in row.types}
    for index, parameter in enumerate(schema.inputs):
        assert index not in row.typed or types & set(parameter.types)


def test_opsets_grow() -> None:
    assert OPSETS[0].since == (10, 12)
    assert sorted(OPSETS, key=lambda opsets: opsets.since) == sorted(OPSETS, key=lambda opsets: opsets.newest)
    assert all(opsets.source for opsets in OPSETS)
