"""Cached tokens are the backbone's, training moves all but the backbone, and the views are the runtime's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from spai_train.data.simulate import REAL, Sample, encode
from spai_train.frozen import Schedule, Tokens, cache_tokens, train_head
from spai_train.models.spai import SPAI
from spai_train.scoring import random_view, scores, views_of

VIEWS = np.random.default_rng(0).integers(0, 256, (10, 2, 32, 32, 3), np.uint8)  # (B, V, S, S, 3)


@pytest.fixture
def model() -> SPAI:
    torch.manual_seed(0)
    return SPAI(replace(TINY, dropout=0.0)).eval()


@pytest.fixture
def cache(model: SPAI, tmp_path: Path) -> Tokens:
    return cache_tokens(model.encoder, list(VIEWS), tmp_path / "tokens.npy", kept=16, seed=0, batch_size=4)


def test_cache_holds_the_backbones_tokens(model: SPAI, cache: Tokens) -> None:
    """All 16 of a view, in order, to the precision of half floats."""
    assert cache.shape == (10, 2, 2, 3, 16, 16)
    with torch.inference_mode():
        blocks = model.encoder.block_tokens(torch.from_numpy(VIEWS.reshape(20, 32, 32, 3)))
    for index, tokens in enumerate(blocks):
        expected = tokens.reshape(3, 10, 2, 16, 16).permute(1, 2, 0, 3, 4)  # (B, V, 3, L, C)
        np.testing.assert_allclose(cache[:, :, index], expected.numpy(), rtol=1e-3, atol=1e-3)


def test_a_part_of_the_tokens_is_the_same_part_of_every_branch(model: SPAI, cache: Tokens, tmp_path: Path) -> None:
    part = cache_tokens(model.encoder, list(VIEWS), tmp_path / "part.npy", kept=5, seed=1)
    whole, kept = cache[0, 0, 0], part[0, 0, 0]  # (3, L, C)
    places = [
        [int(np.abs(whole[branch] - token).sum(axis=1).argmin()) for token in kept[branch]] for branch in range(3)
    ]
    assert places[0] == places[1] == places[2] == sorted(set(places[0]))
    np.testing.assert_array_equal(whole[:, places[0]], kept)


def test_training_learns_and_leaves_the_backbone(model: SPAI, cache: Tokens) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    labels = np.arange(10) % 2
    losses = train_head(model, cache, labels, Schedule(epochs=100, batch_size=5, learning_rate=3e-3), seed=0)
    assert losses[-1] < 0.5 * losses[0]
    for name, tensor in model.state_dict().items():
        if "backbone" in name or "filter" in name:
            assert torch.equal(tensor, before[name])
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert {name.split(".")[1] for name in moved} >= {"projectors", "context", "mlp", "to_kv", "queries"}
    assert not model.training


def test_first_loss_is_that_of_the_models_own_forward(model: SPAI, cache: Tokens) -> None:
    """At rate 0 and without dropout, the cached way is the ordinary way."""
    labels = np.arange(10) % 2
    schedule = Schedule(epochs=1, batch_size=10, learning_rate=0.0, weight_decay=0.0, smoothing=0.1)
    (loss,) = train_head(model, cache, labels, schedule, seed=0)
    with torch.inference_mode():
        logit, _ = model(torch.from_numpy(VIEWS))
    target = torch.from_numpy(labels).float() * 0.8 + 0.1
    assert loss == pytest.approx(F.binary_cross_entropy_with_logits(logit[:, 0], target).item(), abs=1e-3)


def test_training_follows_from_its_seed(cache: Tokens) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        model = SPAI(TINY)
        train_head(model, cache, np.arange(10) % 2, Schedule(epochs=2, batch_size=4), seed=3)
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_scores_are_the_models_on_the_runtimes_views(model: SPAI) -> None:
    image = np.random.default_rng(1).integers(0, 256, (70, 100, 3), np.uint8)
    views = views_of(image, TINY)
    expected = [image[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32, 64)]
    np.testing.assert_array_equal(views, expected)
    with torch.inference_mode():
        logit, _ = model(torch.from_numpy(views)[None])
    np.testing.assert_allclose(scores(model, [Sample(encode(image, None), REAL)]), logit[0].sigmoid(), rtol=1e-6)
    assert scores(model, []).shape == (0,)


def test_random_views_come_from_the_whole_image() -> None:
    image = np.stack(np.meshgrid(np.arange(60), np.arange(50), np.zeros(1), indexing="ij"), axis=-1)[:, :, 0]
    rng = np.random.default_rng(0)
    views = [random_view(image.astype(np.uint8), 32, rng)[0] for _ in range(400)]
    tops, lefts = ({int(view[0, 0, axis]) for view in views} for axis in (0, 1))
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 28, 0, 18)
