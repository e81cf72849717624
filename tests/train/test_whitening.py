"""The whitened patch embedding and the initial weights have the variances that they promise."""

import numpy as np
import pytest
import torch
from torch import nn

from spai_train.detectors.spai.model import SPAI
from spai_train.models.whitening import sample_patches, scale_by_fan_in, whiten_patches
from spai_train.simulation.drawing import photograph
from tests.support.models import TINY


@pytest.fixture(scope="module")
def views() -> torch.Tensor:
    return torch.from_numpy(np.stack([photograph(np.random.default_rng(seed), 32, 32) for seed in range(12)]))


def test_patches_are_pieces_of_the_normalised_views(views: torch.Tensor) -> None:
    encoder = SPAI(TINY).encoder
    patches = sample_patches(encoder, encoder.backbone, views[:1], 50, seed=0)
    assert patches.shape == (50, 3 * 8 * 8)
    original = encoder.branches(views[:1])[0]  # (3, S, S)
    places = original.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3 * 64)
    assert torch.cdist(patches.double(), places.double()).min(dim=1).values.max() < 1e-3


def test_embedded_patches_are_uncorrelated_with_unit_variance(views: torch.Tensor) -> None:
    model = SPAI(TINY)
    patches = sample_patches(model.encoder, model.encoder.backbone, views, 8000, seed=0)
    whiten_patches(model.encoder.backbone, patches)
    with torch.no_grad():
        embedded = model.encoder.backbone.patch_embed(patches.reshape(-1, 3, 8, 8).repeat(1, 1, 4, 4))[:, 0]
    torch.testing.assert_close(embedded.mean(dim=0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(embedded.T), torch.eye(16), atol=0.02, rtol=0)


def test_the_leading_component_has_the_largest_variance(views: torch.Tensor) -> None:
    """An independent reference: scikit-learn's PCA."""
    from sklearn.decomposition import PCA  # noqa: PLC0415

    model = SPAI(TINY)
    patches = sample_patches(model.encoder, model.encoder.backbone, views, 4000, seed=0)
    whiten_patches(model.encoder.backbone, patches, floor=0.0)
    weight = model.encoder.backbone.patch_embed.proj.weight.detach().flatten(1).numpy()
    reference = PCA(16).fit(patches.double().numpy())
    expected = reference.components_ / np.sqrt(reference.explained_variance_)[:, None]
    cosine = (weight * expected).sum(axis=1) / np.linalg.norm(weight, axis=1) / np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(np.abs(cosine[:8]), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(weight, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-3)


def test_linear_layers_are_scaled_by_their_inputs() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(400, 300), nn.LayerNorm(300), nn.Linear(100, 300, bias=False))
    scale_by_fan_in(layers)
    assert layers[0].weight.std().item() == pytest.approx(1 / 20, rel=0.02)
    assert layers[2].weight.std().item() == pytest.approx(1 / 10, rel=0.02)
    assert not layers[0].bias.any()
