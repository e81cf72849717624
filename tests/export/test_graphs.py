"""Exported encoders node by node: which types they carry, how they say attention, and that nothing reads a shape."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper, parser
from torch import nn

from spai_export.float32 import to_float32
from spai_export.onnx import FUSED_OPSET, OPSET, export_encoder
from spai_export.precision import Half, Precision, cast
from spai_export.verify import sample_views
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SpectralEncoder
from spai_train.models.vit import BackboneName
from tests.support.models import CONFIGS

DEPTH = 2
ELEMENTS = {
    Precision.FP32: TensorProto.FLOAT,
    Precision.FP16: TensorProto.FLOAT16,
    Precision.BF16: TensorProto.BFLOAT16,
}
PATCHES = {**ELEMENTS, Precision.BF16: TensorProto.FLOAT16}
FLOATS = {*ELEMENTS.values()}
PRODUCTS = {"MatMul", "Gemm", "Softmax", "Attention", "Gelu", "Sigmoid"}  # of the blocks and the projectors


@dataclass(frozen=True)
class Export:
    """One encoder, cast and exported.

    :param elements: of every tensor, as ONNX infers them
    """

    family: BackboneName
    precision: Precision
    fused: bool
    encoder: SpectralEncoder
    model: onnx.ModelProto
    elements: dict[str, int]

    @property
    def nodes(self) -> list[NodeProto]:
        return [*self.model.graph.node]

    def named(self, *operators: str) -> list[NodeProto]:
        return [node for node in self.nodes if node.op_type in operators]

    def floats(self, node: NodeProto) -> set[int]:
        """The types of what a node reads and gives, as far as they are floating."""
        return {self.elements[name] for name in (*node.input, *node.output) if name} & FLOATS

    def around(self, nodes: Iterable[NodeProto], *, after: bool) -> set[str]:
        """Names of the nodes behind (or before) these, themselves left out."""
        gives, reads = ("output", "input") if after else ("input", "output")
        seen = {name for node in nodes for name in getattr(node, gives)}
        found = set()
        for node in self.nodes if after else reversed(self.nodes):
            if seen & {*getattr(node, reads)}:
                found.add(node.name)
                seen |= {*getattr(node, gives)}
        return found


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Export]:
    folder = tmp_path_factory.mktemp("graphs")

    @cache
    def exported(family: BackboneName, precision: Precision, fused: bool) -> Export:
        torch.manual_seed(0)
        config = replace(CONFIGS[family], width=32, heads=2, depth=DEPTH, blocks=tuple(range(DEPTH)))
        encoder = SPAI(config).encoder.eval()
        for parameter in encoder.backbone.parameters():
            nn.init.normal_(parameter, std=0.2)
        path = folder / f"{family}-{precision}-{fused}.onnx"
        copy = cast(SPEC, encoder, precision, fused=fused)
        export_encoder(copy, (config.tile_size, config.tile_size), path, FUSED_OPSET if fused else OPSET)
        model = onnx.load(str(path))
        return Export(family, precision, fused, copy, model, elements_of(model))

    return exported


KINDS: list[tuple[BackboneName, Precision, bool]] = [
    ("mfm", Precision.FP16, False),
    ("mfm", Precision.FP32, True),
    ("clip", Precision.BF16, False),
    ("clip", Precision.FP16, True),
    ("dinov2", Precision.BF16, True),
    ("dinov2_vitg14", Precision.FP16, False),
]


def label(kind: tuple[BackboneName, Precision, bool]) -> str:
    return f"{kind[0]}-{kind[1]}-{'fused' if kind[2] else 'plain'}"


@pytest.fixture(params=KINDS, ids=label)
def export(request: pytest.FixtureRequest, exports: Callable[..., Export]) -> Export:
    return exports(*request.param)


def shape_of(export: Export) -> tuple[int, int]:
    return CONFIGS[export.family].tile_size, CONFIGS[export.family].tile_size


def elements_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    constants = {node.output[0]: node.attribute[0].t.data_type for node in graph.node if node.op_type == "Constant"}
    tensors = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {**{value.name: value.type.tensor_type.elem_type for value in values}, **constants, **tensors}


def attribute(node: NodeProto, name: str) -> object:
    return next(helper.get_attribute_value(found) for found in node.attribute if found.name == name)


# ------------------------------------------------------------------------------------------------ the contract


def test_the_contract(export: Export) -> None:
    graph = export.model.graph
    described = [
        (
            v.name,
            v.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in v.type.tensor_type.shape.dim],
        )
        for v in (*graph.input, *graph.output)
    ]
    size = CONFIGS[export.family].tile_size
    assert described == [
        ("views", TensorProto.UINT8, ["views", size, size, 3]),
        ("features", TensorProto.FLOAT, ["views", 6 * DEPTH + CONFIGS[export.family].projection]),
    ]
    assert {found.domain: found.version for found in export.model.opset_import} == {"": 23 if export.fused else 20}
    assert [node.op_type for node in export.nodes if "views" in node.input] == ["Cast"]
    assert not {"Shape", "Expand", "ConstantOfShape", "Range", "If", "Loop", "DFT"} & {n.op_type for n in export.nodes}
    assert not any(node.metadata_props or node.doc_string for node in export.nodes)
    assert not export.model.functions


# ------------------------------------------------------------------------------------------------ types


def test_casts_are_as_few_as_there_can_be(export: Export) -> None:
    """Into and out of the patch embedding, of each attention, MLP and projector; CLIP's last MLP is never run."""
    casts = Counter(attribute(node, "to") for node in export.named("Cast"))
    expected = Counter({TensorProto.FLOAT: 1})  # of uint8
    if export.precision is not Precision.FP32:
        islands = DEPTH * 3 - (export.family == "clip")
        expected += Counter({PATCHES[export.precision]: 1})
        expected += Counter({ELEMENTS[export.precision]: islands, TensorProto.FLOAT: 1 + islands})
    assert casts == expected


def test_pixels_and_statistics_are_single(export: Export) -> None:
    """All before the patch embedding, the filter's four products among them, and all behind the projectors."""
    (conv,) = export.named("Conv")
    before = export.around([conv], after=False)
    behind = export.around(export.named("ReduceSum", "ReduceMean"), after=True)
    single = [node for node in export.nodes if node.name in before | behind and node.op_type != "Cast"]
    assert sum(node.op_type == "MatMul" and node.name in before for node in single) == 4
    assert sum(node.op_type in {"MatMul", "Gemm"} and node.name in behind for node in single) == 4
    for node in [*single, *export.named("LayerNormalization", "ReduceSum", "ReduceMean", "Pow", "Sqrt")]:
        assert export.floats(node) <= {TensorProto.FLOAT}, node.name


def test_products_of_the_network_are_half(export: Export) -> None:
    (conv,) = export.named("Conv")
    assert export.floats(conv) == {PATCHES[export.precision]}
    between = export.around([conv], after=True) - export.around(export.named("ReduceSum", "ReduceMean"), after=True)
    products = [node for node in export.nodes if node.name in between and node.op_type in PRODUCTS]
    clip = export.family == "clip"
    linear = DEPTH * 6 - 2 * clip + (0 if export.fused else 2 * DEPTH)
    assert sum(node.op_type in {"MatMul", "Gemm"} for node in products) == linear
    for node in products:
        assert export.floats(node) == {ELEMENTS[export.precision]}, node.name


def test_the_residual_stream_is_single(export: Export) -> None:
    initial = {tensor.name for tensor in export.model.graph.initializer}
    sums = [node for node in export.named("Add") if not initial & {*node.input}]
    assert len(sums) == DEPTH * 2 - (export.family == "clip")
    assert all(export.floats(node) == {TensorProto.FLOAT} for node in sums)


# ------------------------------------------------------------------------------------------------ attention


def test_attention(export: Export) -> None:
    """`MatMul(q·s, kᵀ) → Softmax → MatMul` with nothing between, or one node."""
    if export.fused:
        assert len(export.named("Attention")) == DEPTH
        assert all(attribute(node, "scale") == pytest.approx(0.25) for node in export.named("Attention"))
        assert not export.named("Softmax")
        return
    assert len(export.named("Softmax")) == DEPTH
    makers = {name: node for node in export.nodes for name in node.output}
    for softmax in export.named("Softmax"):
        scores = makers[softmax.input[0]]
        scaled, keys = (makers[name] for name in scores.input)
        users = [node.op_type for node in export.nodes if softmax.output[0] in node.input]
        assert (scaled.op_type, keys.op_type, scores.op_type, users) == ("Mul", "Transpose", "MatMul", ["MatMul"])
        assert constant(export.model.graph, scaled.input[1]) == 0.25


def constant(graph: GraphProto, name: str) -> float:
    found = {tensor.name: tensor for tensor in graph.initializer}
    found |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    return float(numpy_helper.to_array(found[name]).item())


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("export", [kind for kind in KINDS if kind[1] is not Precision.BF16], indirect=True, ids=label)
def test_onnx_runtime_gives_the_copys_features(export: Export) -> None:
    """bf16 aside, for which it has no kernels on the CPU."""
    session = onnxruntime.InferenceSession(export.model.SerializeToString())
    for count in (1, 2, 3, 5):
        views = sample_views(count, *shape_of(export))
        (found,) = session.run(None, {"views": views})
        tolerance = 5e-6 if export.precision is Precision.FP32 else 1e-3
        np.testing.assert_allclose(found, export.encoder(torch.from_numpy(views)), atol=tolerance, rtol=0)


def test_widened_it_is_the_copy_with_float32_arithmetic(export: Export) -> None:
    """The rounded weights, and nothing else rounded; but for the 1.702 of CLIP's GELU, which the graph rounds too."""
    wide = to_float32(export.model)
    onnx.checker.check_model(wide, full_check=True)
    assert not set(elements_of(wide).values()) & {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    copy = single_arithmetic(export)
    session = onnxruntime.InferenceSession(wide.SerializeToString())
    for count in (1, 3):
        views = sample_views(count, *shape_of(export))
        (found,) = session.run(None, {"views": views})
        tolerance = 1e-3 if export.family == "clip" else 5e-6
        np.testing.assert_allclose(found, copy(torch.from_numpy(views)), atol=tolerance, rtol=0)


def single_arithmetic(export: Export) -> SpectralEncoder:
    copy = cast(SPEC, export.encoder, Precision.FP32, fused=export.fused).float()
    for module in copy.modules():
        if isinstance(module, Half):
            module.dtype = module.gives = torch.float32
    return copy


def test_widen_reaches_constants_and_branches_and_leaves_its_argument() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
        g (bool c, bfloat16[2] x) => (bfloat16[2] y) {
            y = If (c) <
                then_branch = a () => (bfloat16[2] p) { p = Mul (x, w) },
                else_branch = b () => (bfloat16[2] q) { h = Cast <to = 10> (x) q = Cast <to = 16> (h) }>
        }"""
    model = parser.parse_model(text)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0]))
    half = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float16([3, 0.1]), "k"))
    model.graph.node.insert(0, half)
    before = model.SerializeToString()
    wide = to_float32(model)
    assert model.SerializeToString() == before
    assert numpy_helper.to_array(wide.graph.node[0].attribute[0].t).tolist() == [3.0, float(np.float16(0.1))]
    session = onnxruntime.InferenceSession(wide.SerializeToString())
    for chosen, wanted in ((True, [1.5146484375, -2.0]), (False, [1.009765625, 1.0])):
        (found,) = session.run(None, {"c": np.array(chosen), "x": np.float32([1.009765625, 1.0])})
        assert found.tolist() == wanted
