"""The model against upstream's golden numbers, and what the golden configuration does not reach."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spai_train.checkpoint import load_checkpoint
from spai_train.detectors.spai.model import SPAI, Projector, SPAIConfig, _mean_std, _similarity_statistics
from spai_train.models.dropout import Dropout
from spai_train.models.vit import ShapelessAttention
from tests.golden import CHECKPOINT, IMAGES, expected, golden_views
from tests.support.models import UNEVEN


@pytest.fixture(scope="module")
def golden_model() -> SPAI:
    return load_checkpoint(CHECKPOINT).model()


@pytest.mark.parametrize("index", range(len(IMAGES)))
def test_parity_with_upstream(golden_model: SPAI, index: int) -> None:
    views = golden_views(index)
    np.testing.assert_allclose((views / 255.0).sum((1, 2, 3)), expected(f"{index}/tiles_sum"), rtol=1e-6)
    with torch.inference_mode():
        features = golden_model.encoder(torch.from_numpy(views))
        logit, attention = golden_model.head(features[None])
    np.testing.assert_allclose(features, expected(f"{index}/features"), atol=1e-4, rtol=0)
    np.testing.assert_allclose(attention[0], expected(f"{index}/attention").mean(axis=0), atol=1e-5, rtol=0)
    np.testing.assert_allclose(logit[0], expected(f"{index}/logit"), atol=1e-4, rtol=0)


def test_a_batch_of_images_is_each_image(golden_model: SPAI) -> None:
    views = torch.from_numpy(np.stack((golden_views(0), golden_views(1))))  # (2, 5, S, S, 3)
    with torch.inference_mode():
        logits, attention, _ = golden_model(views)
    assert attention.shape == (2, 5)
    for index in range(2):
        np.testing.assert_allclose(logits[index], expected(f"{index}/logit"), atol=1e-4, rtol=0)


def test_published_dimensions() -> None:
    with torch.device("meta"):
        model = SPAI(SPAIConfig())
    assert model.config.features == 1096
    assert [layer.out_features for layer in model.head.mlp] == [3288, 3288, 1]
    ours = sum(parameter.numel() for parameter in model.parameters()) - 12 * 768  # upstream has no bias on k
    block = 12 * 768**2 + 12 * 768
    unused = 197 * 768 + 768 + block + 13 * 2 * 768 + 2 * (12 * 768 + 1)  # positions, CLS, block, norms, classifier
    assert ours + 224 * 224 + unused == 139_945_243  # the mask is a parameter of upstream's


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": (1,)},
        {"blocks": (0, 1, 2)},
        {"width": 40, "heads": 5},
        {"depth": 5, "blocks": (4,)},
        {"tile_size": 48},
        {"mask_radius": 0.5},
        {"projection_layers": 1},
        {"projection_gelu": True},
        {"head_ratio": 1},
    ],
)
def test_any_configuration(change: dict[str, object]) -> None:
    config = replace(UNEVEN, **change)  # type: ignore[arg-type]
    model = SPAI(config).eval()
    views = torch.randint(0, 256, (2, 3, config.tile_size, config.tile_size, 3), dtype=torch.uint8)
    logit, attention, embedding = model(views)
    assert embedding.shape == (2, config.features)
    assert logit.shape == (2, 1)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2))
    assert torch.isfinite(logit).all()


def test_similarity_statistics_are_torch_cosine_and_std() -> None:
    projected = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [(0, 1), (0, 2), (1, 2)]
    cosines = [F.cosine_similarity(projected[a], projected[b], dim=-1) for a, b in pairs]
    wanted = [value for cosine in cosines for value in (cosine.mean(dim=1), cosine.std(dim=1))]
    torch.testing.assert_close(_similarity_statistics(projected), torch.stack(wanted, dim=1))


def test_std_of_a_constant_has_a_finite_gradient() -> None:
    x = torch.ones(2, 5, requires_grad=True)
    _mean_std(x, dim=1)[1].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_shapeless_attention_is_timm_attention() -> None:
    torch.manual_seed(0)
    ours = ShapelessAttention(24, num_heads=3, qkv_bias=True).eval()
    x = torch.randn(2, 7, 24)
    q, k, v = ours.qkv(x).reshape(2, 7, 3, 3, 8).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 7, 24)
    torch.testing.assert_close(ours(x), ours.proj(attended))


def test_dropout_comes_after_the_activation() -> None:
    torch.manual_seed(0)
    projector = Projector(4, 4, layers=2, dropout=0.5, norm_input=False, gelu_last=True)
    sequence = nn.Sequential(Dropout(0.5), projector.layers[0], nn.GELU(), Dropout(0.5))
    sequence.extend([projector.layers[1], nn.GELU(), Dropout(0.5), projector.norm_out])
    x = torch.randn(16, 4)
    torch.manual_seed(1)
    trained = projector(x)
    torch.manual_seed(1)
    torch.testing.assert_close(trained, sequence(x))


def test_the_logit_is_that_of_the_embedding() -> None:
    """Contrastive losses compare what the classifier reads: a layer-normalised vector."""
    model = SPAI(UNEVEN).eval()
    logit, attention, embedding = model(random_views())
    torch.testing.assert_close(model.head.classify(embedding), logit)
    found = model.head(model.encoder(random_views().flatten(0, 1)).unflatten(0, (2, 4)))
    torch.testing.assert_close(found, (logit, attention))
    torch.testing.assert_close(embedding, F.layer_norm(embedding, (UNEVEN.features,)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_leaves_pixels_and_statistics_in_single_precision(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    model = SPAI(UNEVEN).eval()
    views = random_views().flatten(0, 1)
    expected, branches = model.encoder(views), model.encoder.branches(views)
    with torch.autocast("cpu", precision):
        assert torch.equal(model.encoder.branches(views), branches)
        projected = model.encoder.projectors[0](model.encoder.block_tokens(views)[0])
        features = model.encoder(views)
    assert projected.dtype == features.dtype == torch.float32
    difference = (features - expected).abs().max()
    assert 0 < difference < 8 * torch.finfo(precision).eps  # rounded somewhere, and no more than a few times


def test_autocast_trains() -> None:
    torch.manual_seed(0)
    model = SPAI(UNEVEN).train()
    with torch.autocast("cpu", torch.bfloat16):
        verdict = model(random_views())
    assert {part.dtype for part in verdict} == {torch.float32}
    (verdict.logit.square().sum() + verdict.embedding.square().sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())  # type: ignore[arg-type]


def random_views() -> torch.Tensor:
    """(2, 4, 32, 32, 3) uint8"""
    return torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_frozen_backbone_leaves_the_rest_trainable() -> None:
    model = SPAI(UNEVEN)
    model.freeze_backbone()
    assert not any(tokens.requires_grad for tokens in model.encoder.block_tokens(random_views()[0]))
    model(random_views()).logit.sum().backward()
    assert all(parameter.grad is None for parameter in model.encoder.backbone.parameters())
    trained = [*model.encoder.projectors.parameters(), *model.encoder.context.parameters(), *model.head.parameters()]
    assert all(parameter.grad is not None for parameter in trained)
