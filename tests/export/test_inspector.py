"""What a graph asks for, what the engine inspector reports, and what a user is told of the difference."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from spai_export.tensorrt.inspector import UNREADABLE, Layer, Layers, Wanted

# Two attentions in fp16, the second with its Softmax in fp32, and a product in fp32 behind them.
HALF = """
<ir_version: 10, opset_import: ["": 20]>
half (float[N,4,8] x) => (float[N,4,8] y)
<float16[8,8] w, float[8,8] last>
{
   [cast] h = Cast<to = 10>(x)
   [qkv] a = MatMul(h, w)
   [turn] t = Transpose<perm = [0, 2, 1]>(a)
   [scores] s = MatMul(a, t)
   [softmax] p = Softmax<axis = -1>(s)
   [sum] o = MatMul(p, a)
   [turn_2] t2 = Transpose<perm = [0, 2, 1]>(o)
   [scores_2] s2 = MatMul(o, t2)
   [up] s3 = Cast<to = 1>(s2)
   [softmax_2] p2 = Softmax<axis = -1>(s3)
   [down] p3 = Cast<to = 10>(p2)
   [sum_2] o2 = MatMul(p3, o)
   [back] b = Cast<to = 1>(o2)
   [out] y = MatMul(b, last)
}
"""

# A product of eight bits, one whose weights alone have eight bits, and a Softmax that is no attention's.
QUANTIZED = """
<ir_version: 10, opset_import: ["": 20]>
quantized (float16[N,4,8] x) => (float16[N,4,8] y)
<float16 scale = {1}, int8 zero = {0}, int8[8,8] w, int8[8,8] v>
{
   [q] xq = QuantizeLinear(x, scale, zero)
   [dq] xd = DequantizeLinear(xq, scale, zero)
   [dw] wd = DequantizeLinear(w, scale, zero)
   [turn] wt = Transpose<perm = [1, 0]>(wd)
   [both] a = MatMul(xd, wt)
   [softmax] p = Softmax<axis = -1>(a)
   [dv] vd = DequantizeLinear(v, scale, zero)
   [weights] b = MatMul(x, vd)
   [add] y = Add(p, b)
}
"""

WHOLE = """
<ir_version: 11, opset_import: ["": 23]>
whole (bfloat16[N,2,4,8] x) => (bfloat16[N,2,4,8] y)
{
   [attention] y = Attention(x, x, x)
}
"""


def wanted(text: str, folder: Path) -> Wanted:
    path = folder / "graph.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return Wanted.of(path)


@pytest.fixture
def half(tmp_path: Path) -> Wanted:
    return wanted(HALF, tmp_path)


def layer10(nodes: str, kind: str, types: str, tactic: str = "", name: str = "", **more: Any) -> dict[str, Any]:
    """An entry as TensorRT 10 writes it.

    :param nodes: ONNX nodes, separated by blanks
    :param types: of the input and the output, separated by an arrow
    """
    first, last = types.split(" → ")
    return {
        "Name": name or nodes.replace(" ", "+") + "_myl0_3",
        "LayerType": kind,
        "Inputs": [{"Name": "a", "Location": "Device", "Dimensions": [8, 4, 8], "Format/Datatype": first}],
        "Outputs": [{"Name": "b", "Location": "Device", "Dimensions": [8, 4, 8], "Format/Datatype": last}],
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes.split()),
        **more,
    }


def layer11(nodes: str, kind: str, types: str, tactic: str = "") -> dict[str, Any]:
    """An entry as TensorRT 11 writes it: type and format apart."""
    entry = layer10(nodes, kind, types, tactic)
    for tensor in (*entry["Inputs"], *entry["Outputs"]):
        tensor |= {"Datatype": tensor.pop("Format/Datatype"), "Format": "Row major linear format (kLINEAR)"}
    return entry


FUSED = "_gemm_mha_v2_0xbcebb264ff01c4c4f8078856729f8b7e"
WELL_BUILT = (
    ("cast", "kgen", "Float → Half", "__myl_Cast"),
    ("qkv", "gemm", "Half → Half", "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64"),
    ("scores softmax sum", "kgen", "Half → Half", FUSED),
    ("scores_2 up softmax_2 down sum_2", "kgen", "Half → Half", FUSED),
    ("out", "gemm", "Float → Float", "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize32x32x8"),
)
AS_WANTED = [
    "2 of 2 attentions are fused",
    "5 of 5 fp16 products run in fp16",
    "1 of 6 products are fp32 in the graph",
]


def report(layers: list[dict[str, Any]]) -> Layers:
    return Layers.of(json.dumps({"Layers": layers, "Bindings": ["x", "y"]}))


def test_a_graph_says_in_which_type_it_multiplies_and_where_its_attentions_are(half: Wanted) -> None:
    fp16 = dict.fromkeys(("qkv", "scores", "sum", "scores_2", "sum_2"), "fp16")
    assert half.products == {**fp16, "out": "fp32"}
    assert half.attentions == [{"scores", "softmax", "sum"}, {"scores_2", "softmax_2", "sum_2"}]


def test_a_product_has_eight_bits_if_both_its_factors_do(tmp_path: Path) -> None:
    assert wanted(QUANTIZED, tmp_path) == Wanted({"both": "int8", "weights": "fp16"}, [])


def test_an_attention_that_is_one_operator(tmp_path: Path) -> None:
    assert wanted(WHOLE, tmp_path) == Wanted({"attention": "bf16"}, [frozenset({"attention"})])


def test_the_exported_encoder_is_understood(tiny_detector: Path) -> None:
    found = Wanted.of(tiny_detector / "encoder.onnx")
    operators = Counter(node.op_type for node in onnx.load(tiny_detector / "encoder.onnx").graph.node)
    assert Counter(found.products.values()) == {"fp32": operators["MatMul"] + operators["Gemm"] + operators["Conv"]}
    assert len(found.attentions) == operators["Softmax"] == 2  # the depth of TINY
    assert [len(nodes) for nodes in found.attentions] == [3, 3]


@pytest.mark.parametrize("layer", [layer10, layer11], ids=["TensorRT 10", "TensorRT 11"])
def test_a_plan_that_does_what_the_graph_asks_for(half: Wanted, layer: Any) -> None:
    assert report([layer(*entry) for entry in WELL_BUILT]).summary(half) == AS_WANTED


def test_products_that_fell_out_are_named_with_what_they_run_in(half: Wanted) -> None:
    layers = [layer10(*entry) for entry in WELL_BUILT]
    layers[1] = layer10("qkv", "gemm", "Float → Float")
    layers[2] = layer10("scores softmax sum", "kgen", "Float → Float", FUSED)
    assert report(layers).summary(half)[1] == (
        "2 of 5 fp16 products run in fp16; fell out of it: qkv (fp32), scores (fp32), sum (fp32)"
    )


def test_casts_fused_into_a_product_do_not_hide_its_weights(half: Wanted) -> None:
    layers = [layer10(*entry) for entry in WELL_BUILT]
    constant = {"Name": "w", "Dimensions": [8, 8], "Format/Datatype": "Half"}
    layers[1] = layer10("cast qkv", "gemm", "Float → Float", Constants=[constant])
    assert report(layers).summary(half)[1] == AS_WANTED[1]
    layers[1] = layer10("cast qkv", "CaskGemmMatrixMultiply", "Float → Float", Weights={"Type": "Half", "Count": 64})
    assert report(layers).summary(half)[1] == AS_WANTED[1]


def test_attentions_that_were_taken_apart(half: Wanted) -> None:
    apart = [
        layer10("scores_2", "gemm", "Half → Half"),
        layer10("softmax_2", "kgen", "Half → Half", "__myl_MaxSubExpSum"),
    ]
    layers = [layer10(*entry) for entry in WELL_BUILT]
    layers[3:4] = [*apart, layer10("sum_2", "gemm", "Half → Half")]
    assert report(layers).summary(half)[0] == "1 of 2 attentions are fused; not those of scores_2"
    layers[2:3] = [layer10(node, "gemm", "Half → Half") for node in ("scores", "softmax", "sum")]
    assert report(layers).summary(half)[0] == "0 of 2 attentions are fused"


def test_one_layer_for_all_of_an_attention_is_fused_whatever_its_name(half: Wanted) -> None:
    layers = [layer10(*entry) for entry in WELL_BUILT]
    layers[3] = layer10("scores_2 softmax_2 sum_2", "kgen", "Half → Half", "__new_kernel")
    assert report(layers).summary(half)[0] == AS_WANTED[0]


def test_where_types_are_not_said_the_kernel_tells(half: Wanted) -> None:
    layers = [layer10(*entry) for entry in WELL_BUILT]
    silent = "N/A due to dynamic shapes → N/A due to dynamic shapes"
    layers[1] = layer10("qkv", "gemm", silent, "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n")
    layers[2] = layer10("scores softmax sum", "kgen", silent, FUSED)  # nothing is known of it
    assert report(layers).summary(half)[1] == "2 of 3 fp16 products run in fp16; fell out of it: qkv (fp32)"


def test_many_names_are_cut_short() -> None:
    names = [f"p{index}" for index in range(9)]
    layers = report([layer10(name, "gemm", "Float → Float") for name in names])
    assert layers.summary(Wanted(dict.fromkeys(names, "bf16"), []))[0] == (
        "0 of 9 bf16 products run in bf16; fell out of it: "
        "p0 (fp32), p1 (fp32), p2 (fp32), p3 (fp32), p4 (fp32), p5 (fp32) and 3 more"
    )


@pytest.mark.parametrize(
    ("said", "type_"),
    [  # the wordings of TensorRT 8 to 11
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Row major linear FP8 format", "fp8"),
        ("Half(64,1:8,32,8)", "fp16"),
        ("BFloat16", "bf16"),
        ("Float", "fp32"),
        ("FP8E4M3", "fp8"),
    ],
)
def test_wordings_of_types(said: str, type_: str) -> None:
    assert Layer.of(layer10("a", "gemm", f"{said} → {said}")).types == {type_}


@pytest.mark.parametrize("said", ["Row major linear UInt8 format", "Int64", "N/A due to dynamic shapes", "Bool"])
def test_what_is_no_type_of_a_product(said: str) -> None:
    assert Layer.of(layer10("a", "kgen", f"{said} → {said}")).types == set()


@pytest.mark.parametrize(
    ("tactic", "type_"),
    [
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x64x32", "fp16"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "bf16"),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize32x32x64", "fp32"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw", "int8"),
        ("sm89_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn_n", "fp8"),
    ],
)
def test_types_in_names_of_kernels(tactic: str, type_: str) -> None:
    assert Layer.of(layer10("a", "gemm", " → ", tactic)).types == {type_}


@pytest.mark.parametrize(
    ("tactic", "fused"),
    [
        ("_gemm_mha_v2_0xbceb", True),
        ("fmha_v2_flash_attention_fp16_64_64_S_qkv_64_sm90_kernel_nl", True),
        ("kgen_mha", True),
        ("sm80_xmma_gemm_f16f16_f16f32", False),
        ("__myl_AlphaMulAdd", False),
    ],
)
def test_names_of_fused_kernels(tactic: str, fused: bool) -> None:
    assert Layer.of(layer10("a", "kgen", "Half → Half", tactic)).fused is fused


@pytest.mark.parametrize(
    ("entry", "nodes"),
    [
        ({"Name": "conv + relu", "Metadata": "[ONNX Layer: node_conv2d]\x1e[ONNX Layer: node_relu]"}, "conv2d relu"),
        ({"Name": "node_conv2d + node_relu", "Metadata": ""}, "conv2d relu"),
        ({"Name": "node_MatMul_51+node_add_myl0_17"}, "MatMul_51 add"),
        ({"Name": "node_linear_myl3", "Metadata": None}, "linear"),
    ],
)
def test_the_nodes_of_a_layer(entry: dict[str, Any], nodes: str) -> None:
    assert Layer.of(entry).nodes == {f"node_{name}" for name in nodes.split()}


def test_separators_that_json_forbids_are_read(half: Wanted) -> None:
    text = json.dumps({"Layers": [layer10(*entry) for entry in WELL_BUILT]}).replace("\\u001f", "\x1f")
    assert "\x1f" in text
    assert Layers.of(text).summary(half) == AS_WANTED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"Layers": 3}',
        '{"Layers": ["a", "b"]}',
        '{"Layers": []}',
        '{"Layers": [{"Inputs": 3}]}',
    ],
)
def test_an_unknown_layout_is_said_to_be_one(half: Wanted, text: str) -> None:
    assert Layers.of(text).summary(half) == [UNREADABLE]


def test_a_report_without_names_of_the_graph(half: Wanted) -> None:
    layers = report([layer10("", "kgen", "Half → Half", name="{ForeignNode[onnx::MatMul_1...Add_2]}")])
    assert layers.summary(half) == ["the engine inspector's report names no node of the graph"]
