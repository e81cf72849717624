"""What TensorRT does not import is found, each thing with its sentence, and what the project exports is free of it."""

import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from spai_export.choices import Precision
from spai_export.onnx import FUSED_OPSET, OPSET, export_encoder
from spai_export.precision import cast
from spai_export.tensorrt.lint import VERSIONS, Finding, LintError, check, lint
from spai_export.tensorrt.lint.operators import OPSETS, TABLE, Row
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SPAIConfig


def model(text: str, opset: int = 20, domain: str = "") -> onnx.ModelProto:
    """A graph in ONNX's text form: `g (float[N] x) => (float[N] y) { y = Relu(x) }`, and functions after it."""
    domains = ", ".join(
        f'"{name}": {number}' for name, number in {"": opset, domain: opset if not domain else 1}.items()
    )
    return parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]>\n{text}")


def sentences(graph: onnx.ModelProto, version: str = "11.4") -> list[str]:
    return [str(finding) for finding in lint(graph, version)]


# ------------------------------------------------------------------------------------------------ what is exported


@pytest.mark.parametrize("version", [*VERSIONS, "10.13", "10.14", "11.0"])
def test_exports_pass(golden_detector: Path, tiny_detector: Path, version: str) -> None:
    graphs = [folder / name for folder in (golden_detector, tiny_detector) for name in ("encoder.onnx", "head.onnx")]
    assert [lint(graph, version) for graph in graphs] == [[]] * 4


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_every_precision_passes(tiny_config: SPAIConfig, tmp_path: Path, precision: Precision, fused: bool) -> None:
    """Both formulations of attention, the fused one from the TensorRT on that has it."""
    encoder = SPAI(replace(tiny_config, depth=1, blocks=(0,))).encoder
    path = tmp_path / "encoder.onnx"
    shape = tiny_config.tile_size, tiny_config.tile_size
    export_encoder(cast(SPEC, encoder, precision, fused=fused), shape, path, FUSED_OPSET if fused else OPSET)
    assert [finding.operator for finding in lint(path, "10.12")] == ["Attention"] * fused
    assert lint(path, "10.14") == lint(path, "11.4") == []


# ----------------------------------------------------------------------------------------------- what must be found

UINT8 = "uint8, which TensorRT has only as a network input or output, with a Cast between it and float32 or float16"
WRONG = {
    "uint8 into Transpose": (
        "g (uint8[N,4] x) => (float[4,N] y) { [turn] t = Transpose <perm = [1, 0]> (x) [cast] y = Cast <to = 1> (t) }",
        [f"Transpose (turn): reads {UINT8}", f"Transpose (turn): gives {UINT8}", f"Cast (cast): reads {UINT8}"],
    ),
    "Shape of uint8": ("g (uint8[N,4] x) => (int64[2] y) { y = Shape (x) }", [f"Shape (y): reads {UINT8}"]),
    "uint8 to bfloat16": (
        "g (uint8[N] x) => (bfloat16[N] y) { y = Cast <to = 16> (x) }",
        [f"Cast (y): reads {UINT8}"],
    ),
    "uint8 within": (
        "g (float[N] x) => (float[N] y) { t = Cast <to = 2> (x) y = Cast <to = 1> (t) }",
        [f"Cast (t): gives {UINT8}", f"Cast (y): reads {UINT8}"],
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
        ["Gemm (y): input 0 is of rank 3, and TensorRT takes rank 2"],
    ),
    "statistics of LayerNormalization": (
        "g (float[N,4] x, float[4] s) => (float[N,4] y, float[N,1] m) { y, m = LayerNormalization (x, s) }",
        ["LayerNormalization (y): gives 2 tensors, and in TensorRT it gives 1 at most"],
    ),
    "types mixed in Add": (
        "g (float16[N] a, float[N] b) => (float[N] y) { y = Add (a, b) }",
        ["Add (y): mixes float16 and float32, and TensorRT casts nothing by itself"],
    ),
    "types mixed in MatMul": (
        "g (float16[N,4] a) => (float16[N,4] y) <float[4,4] w = {}> { y = MatMul (a, w) }",
        ["MatMul (y): mixes float16 and float32, and TensorRT casts nothing by itself"],
    ),
    "types mixed in Concat": (
        "g (int32[N] a, int32[N] b, int64[N] c) => (int32[M] y) { y = Concat <axis = 0> (a, b, c) }",
        ["Concat (y): mixes int32 and int64, and TensorRT casts nothing by itself"],
    ),
    "int8 without quantization": (
        "g (float[N] x) => (int8[N] y) { t = Cast <to = 3> (x) y = Neg (t) }",
        [
            "Cast (t): gives int8, and TensorRT gives bfloat16, bool, float16, float32, int32, int64 or uint8",
            "Neg (y): input 0 is int8, and TensorRT takes bfloat16, float16, float32, int32 or int64",
        ],
    ),
    "integers into Softmax's neighbours": (
        "g (int32[N,4] x) => (int32[N,4] y) { y = MatMul (x, x) }",
        [f"MatMul (y): input {index} is int32, and TensorRT takes bfloat16, float16 or float32" for index in (0, 1)],
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
            f"QuantizeLinear (q): reads {UINT8}",
            f"QuantizeLinear (q): gives {UINT8}",
            *[f"DequantizeLinear (y): reads {UINT8}"] * 2,
        ],
    ),
    "dilated pooling": (
        "g (float[N,1,8,8] x) => (float[N,1,6,6] y){ y = MaxPool <kernel_shape = [2, 2], dilations = [2, 1]> (x) }",
        ["MaxPool (y): dilations is 2, 1, and TensorRT takes 1"],
    ),
    "pooling in four dimensions": (
        "g (float[N,1,8,8,8,8] x) => (float[N,1,7,7,7,7] y) { y = AveragePool <kernel_shape = [2, 2, 2, 2]> (x) }",
        ["AveragePool (y): input 0 is of rank 6, and TensorRT takes rank 3 or 4 or 5"],
    ),
    "antialiasing": (
        "g (float[N,1,8,8] x) => (float[N,1,4,4] y) <float[4] s = {1, 1, 0.5, 0.5}>"
        '{ y = Resize <antialias = 1, mode = "cubic", keep_aspect_ratio_policy = "not_larger"> (x, , s) }',
        [
            "Resize (y): antialias is 1, and TensorRT takes 0",
            "Resize (y): keep_aspect_ratio_policy is not_larger, and TensorRT takes stretch",
        ],
    ),
    "a constant of text": (
        'g () => (string y) { y = Constant <value_string = "a"> () }',
        ["Constant (y): has the attribute value_string, which TensorRT does not take"],
    ),
    "dropout in training": (
        "g (float[N] x) => (float[N] y) <float r = {0.5}, bool t = {1}> { y = Dropout (x, r, t) }",
        ["Dropout (y): training_mode is not 0, and TensorRT wants 0"],
    ),
    "an operator that none imports": (
        "g (float[N] x) => (float[N] y) { y, i, j, k = Unique (x) }",
        ["Unique (y): no TensorRT imports it"],
    ),
    "an operator outside the table": (
        'g (string[N] x) => (string[N] y) { y = StringNormalizer <case_change_action = "LOWER"> (x) }',
        ["StringNormalizer (y): is not in the table of what TensorRT imports"],
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("text", "found"), WRONG.values(), ids=WRONG)
def test_what_is_not_imported_is_found(text: str, found: list[str], version: str) -> None:
    assert sentences(model(text), version) == found


ATTENTION = "g (float16[N,2,5,{head}] q) => (float16[N,2,5,{head}] y) {{ [mha] y = Attention {attributes} (q, q, q) }}"


def attention(head: int = 64, attributes: str = "") -> onnx.ModelProto:
    return model(ATTENTION.format(head=head, attributes=attributes), opset=23)


@pytest.mark.parametrize(("version", "imported"), [("10.12", False), ("10.13", False), ("10.14", True), ("11.4", True)])
def test_attention_came_with_10_14(version: str, imported: bool) -> None:
    expected = [] if imported else ["Attention (mha): imported since 10.14; export with --attention plain"]
    assert sentences(attention(), version) == expected


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (attention(512), "input 0 ends in an axis of 512, and TensorRT takes 256 at most"),
        (attention(64, "<softcap = 30.0>"), "softcap is 30.0, and TensorRT takes 0.0"),
        (
            model(
                "g (float[N,5,8] q) => (float[N,5,8] y){ y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, q, q) }",
                23,
            ),
            "input 0 is of rank 3, and TensorRT takes rank 4",
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
    assert found in [finding.rule for finding in lint(graph, "10.14")]


@pytest.mark.parametrize(("version", "imported"), [("10.12", False), ("11.1", False), ("11.2", True), ("11.4", True)])
def test_dft_came_with_11_2(version: str, imported: bool) -> None:
    graph = model("g (float[N,8,1] x) => (float[N,8,2] y) { y = DFT (x) }")
    found = "DFT (y): imported since 11.2; write it as a product with the matrix of the transform"
    assert sentences(graph, version) == ([] if imported else [found])


def test_an_operator_of_another_domain() -> None:
    graph = model("g (float[N] x) => (float[N] y) { y = com.microsoft.FastGelu (x) }", domain="com.microsoft")
    found = "FastGelu (y): is of the domain com.microsoft, and TensorRT imports ai.onnx alone"
    assert sentences(graph) == [found]


def test_functions_of_the_file_are_looked_into() -> None:
    text = """g (float[N,8,1] x) => (float[N,8,2] y) { y = here.spectrum (x) }
    <domain: "here", opset_import: ["": 20]> spectrum (a) => (b) { b = DFT (a) }"""
    found = sentences(model(text, domain="here"), "10.12")
    assert len(found) == 1
    assert found[0].startswith("DFT (")


BRANCHES = """g (bool c, uint8[N] x, float[N] f) => (float[N] y) {
    y = If (c) <
        then_branch = t () => (float[N] a) { a = Cast <to = 1> (x) },
        else_branch = e () => (float[1] b) <int64[1] axes = {0}> { [inner] b = ReduceSum (f, axes) }
    >
}"""


def test_graphs_in_nodes_are_looked_into() -> None:
    """A network input is no end of a branch, whose own constants and the tensors around it are known there."""
    assert sentences(model(BRANCHES)) == [f"Cast (a): reads {UINT8}"]
    dft = BRANCHES.replace("ReduceSum (f, axes)", "DFT (f)")
    assert sentences(model(dft), "11.0")[1].startswith("DFT (inner): imported since 11.2")


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


# ------------------------------------------------------------------------------------------- what must not be found

RIGHT = {
    "uint8 at both ends": (
        "g (uint8[N] x) => (uint8[N] y)"
        "{ a = Cast <to = 10> (x) b = Neg (a) c = Cast <to = 1> (b) y = Cast <to = 2> (c) }"
    ),
    "an exponent of another type": "g (float16[N] x) => (float16[N] y) <float two = {2}> { y = Pow (x, two) }",
    "axes in a Constant": (
        "g (float[N,4] x) => (float[N,1] y) { a = Constant <value_ints = [1]> () y = ReduceMean (x, a) }"
    ),
    "a form that is computed": (
        "g (float[N,4] x, float[N,2,2] z) => (float[N,2,2] y) { s = Shape (z) y = Reshape (x, s) }"
    ),
    "amounts of padding that are computed": "g (float[N] x, int64[2] p) => (float[M] y) { y = Pad (x, p) }",
    "pooling in one dimension": "g (float[N,1,8] x) => (float[N,1,7] y) { y = AveragePool <kernel_shape = [2]> (x) }",
    "kernels that are computed": ("g (float[N,3,8,8] x, float[4,3,1,1] w) => (float[N,4,8,8] y) { y = Conv (x, w) }"),
    "quantization to int8 by channel": (
        "g (float[N,2] x) => (float[N,2] y) <float[2] s = {0.5, 0.25}, int8[2] z = {0, 0}>"
        "{ q = QuantizeLinear <axis = 1> (x, s, z) y = DequantizeLinear <axis = 1> (q, s, z) }"
    ),
    "integers clipped": "g (int64[N] x) => (int64[N] y) <int64 one = {1}> { y = Clip (x, one) }",
    "choice": "g (bool[N] c, float16[N] a) => (float16[N] y) { y = Where (c, a, a) }",
    "gathering": "g (float16[N,4] x, int64[1] i) => (float16[1,4] y) { y = Gather (x, i) }",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_is_imported_passes(text: str, version: str) -> None:
    graph = model(text)
    onnx.checker.check_model(graph, full_check=True)
    assert sentences(graph, version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_quantization_to_fp8_passes(version: str) -> None:
    graph = model("g (float16[N] x) => (float16[N] y) { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }")
    scale = helper.make_tensor("s", TensorProto.FLOAT16, [], [0.5])
    graph.graph.initializer.extend([scale, helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])])
    onnx.checker.check_model(graph, full_check=True)
    assert sentences(graph, version) == []


def test_a_tensor_of_unknown_type_is_given_the_benefit_of_the_doubt() -> None:
    graph = model("g (float[N] x) => (float[N] y) { t = here.Thing (x) y = Add (x, t) }", domain="here")
    assert [finding.operator for finding in lint(graph)] == ["Thing"]


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
    check(path, ["10.14", "11.4"])


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
    assert str(Finding("", "ai.onnx", "is old", "a source")) == "ai.onnx: is old"


# -------------------------------------------------------------------------------------------------------- the table


def test_every_row_names_its_source() -> None:
    for row in TABLE.values():
        assert re.search(r"(operators|README|CHANGELOG|Changelog)\.md|\.cpp", row.source), row.operator


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
    types = {f"tensor({TensorProto.DataType.Name(element).lower()})" for element in row.types or ()}
    for index, parameter in enumerate(schema.inputs):
        assert not types or index not in row.typed or types & set(parameter.types)


def test_opsets_grow() -> None:
    assert OPSETS[0].since == (10, 12)
    assert sorted(OPSETS, key=lambda opsets: opsets.since) == sorted(OPSETS, key=lambda opsets: opsets.newest)
    assert all(opsets.source for opsets in OPSETS)
