"""Encoders in half precision against upstream's golden numbers, and what decided which part is half."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn

from spai_export.onnx import FUSED_OPSET, OPSET, export_encoder
from spai_export.precision import COMPUTED_IN, Half, Precision, cast
from spai_export.verify import sample_views
from spai_runtime.detector import demo_directory
from spai_train.checkpoint import load_checkpoint
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI
from spai_train.models.half import PATCHES_IN
from spai_train.models.vit import BackboneName, ShapelessAttention
from tests.golden import CHECKPOINT, expected, golden_views
from tests.support.models import CONFIGS, TINY, model_of

LOWER = [precision for precision in Precision if precision is not Precision.FP32]
HALF = re.compile(r"backbone\.(patch_embed|blocks\.\d+\.(attn|mlp))\.|projectors\.\d+\.layers\.")
Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def golden() -> SPAI:
    return load_checkpoint(CHECKPOINT).model()


def views_for(family: BackboneName, count: int = 3) -> Tensor:
    return torch.from_numpy(sample_views(count, CONFIGS[family].tile_size, CONFIGS[family].tile_size))


def score(model: SPAI, features: NDArray[np.float32]) -> float:
    """The head in float32, as it is in every precision."""
    with torch.inference_mode():
        return model.head(torch.from_numpy(features)[None])[0].sigmoid().item()


def upstreams_score(index: int) -> float:
    return float(1 / (1 + np.exp(-expected(f"{index}/logit").astype(np.float64))).item())


# ----------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_in_onnx_runtime_gives_upstreams_scores(golden: SPAI, tmp_path: Path, fused: bool) -> None:
    copy, path = cast(SPEC, golden.encoder, Precision.FP16, fused=fused), tmp_path / "encoder.onnx"
    export_encoder(copy, (224, 224), path, FUSED_OPSET if fused else OPSET)
    session = onnxruntime.InferenceSession(str(path))
    for index in (0, 3):
        (features,) = session.run(None, {"views": golden_views(index)})
        assert features.dtype == np.float32
        assert abs(score(golden, features) - upstreams_score(index)) <= 2e-3
    for count in (1, 2, 3, 5):
        (features,) = session.run(None, {"views": golden_views(0)[:count]})
        np.testing.assert_allclose(features, expected("0/features")[:count], atol=4e-3, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_bf16_gives_upstreams_scores(golden: SPAI, fused: bool) -> None:
    copy = cast(SPEC, golden.encoder, Precision.BF16, fused=fused)
    for index in (0, 2, 3):
        features = copy(torch.from_numpy(golden_views(index))).numpy()
        assert features.dtype == np.float32
        assert 0 < abs(score(golden, features) - upstreams_score(index)) <= 1e-2


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("precision", LOWER)
def test_every_family_is_close(family: BackboneName, precision: Precision) -> None:
    model, views = model_of(family), views_for(family)
    with torch.inference_mode():
        difference = (cast(SPEC, model.encoder, precision)(views) - model.encoder(views)).abs().max()
    assert 0 < difference < 2 * torch.finfo(COMPUTED_IN[precision]).eps


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("precision", Precision)
def test_attention_is_the_same_in_both_formulations(family: BackboneName, precision: Precision) -> None:
    encoder, views = model_of(family).encoder, views_for(family)
    plain, fused = (cast(SPEC, encoder, precision, fused=value)(views) for value in (False, True))
    torch.testing.assert_close(fused, plain, atol=2e-6 + 4 * torch.finfo(COMPUTED_IN[precision]).eps, rtol=0)


def test_fused_attention_trains() -> None:
    plain = ShapelessAttention(24, num_heads=3, qkv_bias=True)
    fused = deepcopy(plain)
    fused.fused = True
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    for attention in (plain, fused):
        attention(x).square().sum().backward()
    torch.testing.assert_close(fused.qkv.weight.grad, plain.qkv.weight.grad)


# ----------------------------------------------------------------------------------------------- the copy


@pytest.mark.parametrize("family", CONFIGS)
def test_fp32_is_the_original_bit_for_bit(family: BackboneName) -> None:
    model, views = model_of(family), views_for(family)
    assert torch.equal(cast(SPEC, model.encoder, Precision.FP32)(views), model.encoder(views))


@pytest.mark.parametrize("precision", Precision)
def test_the_original_is_left_alone(precision: Precision) -> None:
    encoder = SPAI(TINY).encoder.train()
    before, modules = deepcopy(encoder.state_dict()), [*encoder.modules()]
    copy = cast(SPEC, encoder, precision, fused=True)
    for parameter in copy.parameters():
        parameter.zero_()
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(
        torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype for name, tensor in before.items()
    )
    assert [*encoder.modules()] == modules
    assert all(module.training for module in modules)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert [module.fused for module in modules if isinstance(module, ShapelessAttention)] == [False] * TINY.depth


@pytest.mark.parametrize("precision", Precision)
def test_the_copy_is_for_inference(precision: Precision) -> None:
    copy = cast(SPEC, SPAI(TINY).encoder.train(), precision)
    assert not any(module.training for module in copy.modules())
    assert not copy(views_for("mfm")).requires_grad


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("precision", LOWER)
def test_what_is_half(family: BackboneName, precision: Precision) -> None:
    encoder = model_of(family).encoder
    copy = cast(SPEC, encoder, precision)
    found = {name.replace("module.", ""): tensor for name, tensor in copy.state_dict().items()}
    assert found.keys() == encoder.state_dict().keys()
    for name, original in encoder.state_dict().items():
        half = PATCHES_IN if "patch_embed" in name else COMPUTED_IN[precision]
        assert torch.equal(found[name], original.to(half if HALF.match(name) else torch.float32)), name
    assert {buffer.dtype for buffer in copy.buffers()} == {torch.float32}


# ----------------------------------------------------------------------------------------------- what decided it


def test_bf16_is_too_coarse_for_the_patch_embedding() -> None:
    """The demo detector on a photograph, nothing but the weights of its patch embedding rounded."""
    encoder = onnx.load(str(demo_directory() / "encoder.onnx"))
    (name,) = (node.input[1] for node in encoder.graph.node if node.op_type == "Conv")
    (tensor,) = (tensor for tensor in encoder.graph.initializer if tensor.name == name)
    weights = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    scores = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        tensor.CopyFrom(numpy_helper.from_array(weights.to(dtype).float().numpy(), name))
        scores.append(demo_score(onnxruntime.InferenceSession(encoder.SerializeToString())))
    assert abs(scores[1] - scores[0]) < 2e-3
    assert abs(scores[2] - scores[0]) > 1e-2


def demo_score(encoder: onnxruntime.InferenceSession) -> float:
    """Of a photograph's four corners."""
    with Image.open(Path(__file__).parents[2] / "examples" / "photo_china.jpg") as image:
        pixels = np.asarray(image)
    views = np.stack([pixels[rows, columns] for rows in CORNERS for columns in CORNERS])
    (features,) = encoder.run(None, {"views": views})
    (logit,) = onnxruntime.InferenceSession(str(demo_directory() / "head.onnx")).run(
        ["logit"], {"features": features[None]}
    )
    return float(1 / (1 + np.exp(-logit)).item())


CORNERS = slice(0, 224), slice(-224, None)


def test_a_large_channel_of_the_residual_stream_does_not_overflow() -> None:
    """Each block's part is within fp16, their sum is not."""
    model, views = model_of("mfm"), views_for("mfm")
    with torch.no_grad():
        for block in model.encoder.backbone.blocks:
            block.mlp.fc2.bias[3] = 40_000
    with torch.inference_mode():
        assert model.encoder.block_tokens(views)[-1].max() > torch.finfo(torch.float16).max
        features = cast(SPEC, model.encoder, Precision.FP16)(views)
        torch.testing.assert_close(features, model.encoder(views), atol=2e-3, rtol=0)


def test_half_converts_on_the_way_in_and_out() -> None:
    half = Half(nn.Linear(2, 2), torch.bfloat16)
    x = torch.tensor([[1.00390625, 3.0]])  # 1 + 2⁻⁸, which is between two bfloat16
    wanted = half.module(torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16))
    assert torch.equal(half(x), wanted.float())
    assert Half(nn.Linear(2, 2), torch.float16, gives=torch.float16)(x).dtype == torch.float16
