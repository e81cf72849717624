"""What is folded into the weights of an encoder in fp32: the same features, and a graph that shows it."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import onnx
import pytest
import torch
from onnx import NodeProto, numpy_helper
from torch import nn

from spai_export import source
from spai_export.choices import Precision, Settings
from spai_export.directory import export
from spai_export.folding import fold, fold_affine, fold_norms, split_attention
from spai_export.onnx import ExportError
from spai_export.precision import cast
from spai_export.verify import sample_views
from spai_train.checkpoint import load_checkpoint
from spai_train.detectors.rine import SPEC as RINE
from spai_train.detectors.rine import RINEConfig
from spai_train.detectors.spai import SPEC
from spai_train.models.vit import BackboneName
from tests.golden import CHECKPOINT, expected, golden_views
from tests.support.models import CONFIGS, TINY, model_of

Saving = Callable[[nn.Module], None]
SAVINGS: list[Saving] = [fold_norms, split_attention, fold]


def random_encoder(family: BackboneName, *, fused: bool = False) -> nn.Module:
    """A copy for export in which no scale is 1 and no bias 0."""
    model = model_of(family)
    with torch.no_grad():
        for projector in model.encoder.projectors:
            nn.init.normal_(projector.norm_in.weight)
            nn.init.normal_(projector.norm_in.bias)
    return cast(SPEC, model.encoder, Precision.FP32, fused=fused)


@pytest.mark.parametrize("saving", SAVINGS)
@pytest.mark.parametrize("family", CONFIGS)
def test_features_are_the_same(family: BackboneName, saving: Saving) -> None:
    for fused in (False, True):
        encoder = random_encoder(family, fused=fused)
        folded = deepcopy(encoder)
        saving(folded)
        side = CONFIGS[family].tile_size
        views = torch.from_numpy(sample_views(3, side, side))
        torch.testing.assert_close(folded(views), encoder(views), atol=5e-6, rtol=0)


@pytest.mark.parametrize("saving", SAVINGS)
def test_upstreams_features(saving: Saving) -> None:
    encoder = cast(SPEC, load_checkpoint(CHECKPOINT).model().encoder, Precision.FP32)
    saving(encoder)
    found = encoder(torch.from_numpy(golden_views(0))).numpy()
    assert abs(found - expected("0/features")).max() <= 2e-5


def test_other_detectors() -> None:
    """Of RINE, whose tower's tokens are read behind the second LayerNorm of a block, that one is left as it is."""
    torch.manual_seed(0)
    model = RINE.build(RINEConfig(width=64, depth=2, projection=8))
    for parameter in model.encoder.backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder = cast(RINE, model.encoder, Precision.FP32)
    folded = deepcopy(encoder)
    fold(folded)
    assert [block.norm1.weight is None for block in folded.backbone.blocks] == [True, True]
    assert [block.norm2.weight is None for block in folded.backbone.blocks] == [False, False]
    views = torch.from_numpy(sample_views(2, 224, 224))
    torch.testing.assert_close(folded(views), encoder(views), atol=1e-5, rtol=1e-5)


def test_a_layer_without_bias_gets_one() -> None:
    norm, layer = nn.LayerNorm(3), nn.Linear(3, 2, bias=False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(4, 3)
    wanted = layer(norm(x))
    fold_affine(norm, layer)
    torch.testing.assert_close(layer(norm(x)), wanted)
    assert not [*norm.parameters()]


# ---- the graph


@pytest.fixture(scope="module")
def graph(tiny_detector: Path) -> onnx.GraphProto:
    """In fp32, as spai-export writes it."""
    model = onnx.load(str(tiny_detector / "encoder.onnx"))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph


def test_no_scale_or_shift_before_a_linear_layer(graph: onnx.GraphProto) -> None:
    readers = Counter(name for node in graph.node for name in node.input)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    before = [node for node in norms if {"MatMul"} == {user.op_type for user in users(graph, node)}]
    assert len(before) == 3 * TINY.depth  # two in a block, and that of its projector
    ones = {tensor.name for tensor in graph.initializer if (numpy_helper.to_array(tensor) == 1).all()}
    assert all(len(node.input) == 2 and node.input[1] in ones for node in before)
    assert not [name for name in readers if re.search(r"norm1|norm2|norm_in", name)]


def test_queries_keys_and_values_are_not_cut_from_one_tensor(graph: onnx.GraphProto) -> None:
    softmax = [node for node in graph.node if node.op_type == "Softmax" and node.input[0] != "context.alpha"]
    assert len(softmax) == TINY.depth
    makers = {name: node for node in graph.node for name in node.output}
    for node in softmax:
        scores, (weighted,) = makers[node.input[0]], users(graph, node)
        assert [origin(makers, name) for name in (*scores.input, weighted.input[1])] == ["Add"] * 3
    moved = {tuple(node.attribute[0].ints) for node in graph.node if node.op_type == "Transpose"}
    assert (0, 2, 3, 1) not in moved


def test_no_token_is_divided(graph: onnx.GraphProto) -> None:
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    nodes = {kind: [node for node in graph.node if node.op_type == kind] for kind in ("ReduceL2", "Div")}
    assert [ranks[node.output[0]] for node in nodes["ReduceL2"]] == [3] * TINY.depth  # (3, N, L)
    of_rank = Counter(ranks[node.output[0]] for node in nodes["Div"])
    assert (of_rank[3], of_rank[4]) == (0, 2)  # of rank 4 are those of pixels, by 255 and by their deviation


def users(graph: onnx.GraphProto, node: NodeProto) -> list[NodeProto]:
    return [user for user in graph.node if node.output[0] in user.input]


def origin(makers: Mapping[str, NodeProto], name: str) -> str:
    """The operator whose values these are, in another shape or order."""
    node = makers[name]
    return origin(makers, node.input[0]) if node.op_type in ("Reshape", "Transpose") else node.op_type


# ---- what the export does with it


def test_graphs_are_verified_against_what_is_not_folded(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(encoder: nn.Module) -> None:
        fold(encoder)
        encoder.projectors[0].layers[0].bias += 1

    monkeypatch.setattr(source, "fold", wrong)
    with pytest.raises(ExportError, match="differ from the checkpoint"):
        export(tiny_checkpoint, tmp_path / "m")


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision_keeps_its_form(tiny_checkpoint: Path, precision: Precision) -> None:
    made = source.Source.load(tiny_checkpoint, Settings((precision,)))
    assert made.traced(precision).state_dict().keys() == made.encoder(precision).state_dict().keys()
