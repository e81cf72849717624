"""Objectives against their definitions, summed up term by term in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spai_train.fit import FitRecipe
from spai_train.recipe import load_recipe
from spai_train.training.losses import (
    Objective,
    cross_entropy,
    draw_triplets,
    interpolated,
    objective,
    supervised_contrast,
    triplet_margin,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGIT = torch.randn(7, 1, generator=GENERATOR)
EMBEDDING = torch.randn(7, 5, generator=GENERATOR)
LABELS = torch.tensor([0.0, 1, 1, 0, 1, 0, 1])


def binary(logit: Tensor, targets: NDArray[np.float64]) -> float:
    p = 1 / (1 + np.exp(-logit[:, 0].double().numpy()))
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())


def contrast(embedding: Tensor, labels: Tensor, temperature: float) -> float:
    """Khosla et al. 2020, equation 2, as it is printed."""
    z = embedding.double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    everyone, total = range(len(z)), 0.0
    for i in everyone:
        others = [a for a in everyone if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        partition = sum(math.exp(z[i] @ z[a] / temperature) for a in others)
        terms = [math.log(math.exp(z[i] @ z[p] / temperature) / partition) for p in positives]
        total += -sum(terms) / len(positives) if positives else 0
    return total / len(z)


def triplets(embedding: Tensor, indices: tuple[Tensor, Tensor, Tensor], margin: float) -> float:
    x = embedding.double().numpy()
    distances = [np.linalg.norm(x[a] - x[p]) - np.linalg.norm(x[a] - x[n]) for a, p, n in zip(*indices, strict=True)]
    return float(np.mean([max(0.0, distance + margin) for distance in distances]))


def test_cross_entropy_is_its_definition() -> None:
    assert cross_entropy(LOGIT, LABELS).item() == pytest.approx(binary(LOGIT, LABELS.double().numpy()), rel=1e-6)


def test_smoothing_gives_a_share_to_the_other_class() -> None:
    targets = np.where(LABELS.numpy() == 1, 0.9, 0.1)
    assert cross_entropy(LOGIT, LABELS, 0.1).item() == pytest.approx(binary(LOGIT, targets), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrast_is_its_equation(temperature: float) -> None:
    ours = supervised_contrast(EMBEDDING, LABELS, temperature)
    assert ours.item() == pytest.approx(contrast(EMBEDDING, LABELS, temperature), rel=1e-5)


def test_an_anchor_without_a_positive_adds_nothing() -> None:
    labels = torch.tensor([1.0, 0, 0, 0, 0, 0, 0])
    ours = supervised_contrast(EMBEDDING, labels, 0.5)
    assert ours.item() == pytest.approx(contrast(EMBEDDING, labels, 0.5), rel=1e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_a_batch_without_pairs_has_no_contrast_and_finite_gradients(images: int) -> None:
    embedding = EMBEDDING[:images].clone().requires_grad_()
    loss = supervised_contrast(embedding, LABELS[:images], 0.07)
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad is not None
    assert not embedding.grad.any()


def test_contrast_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = supervised_contrast(EMBEDDING, LABELS, 0.07)
    assert inside.dtype == torch.float32
    assert inside.item() == supervised_contrast(EMBEDDING, LABELS, 0.07).item()


def test_triplets_are_of_an_anchor_its_class_and_the_other() -> None:
    for seed in range(20):
        anchors, positives, negatives = draw_triplets(LABELS, seed)
        assert anchors.tolist() == list(range(7))
        assert torch.equal(LABELS[positives], LABELS)
        assert not (positives == anchors).any()
        assert torch.equal(LABELS[negatives], 1 - LABELS)


def test_triplets_follow_from_the_seed_and_reach_every_candidate() -> None:
    draws = [draw_triplets(LABELS, seed) for seed in range(60)]
    assert all(map(torch.equal, draws[3], draw_triplets(LABELS, 3)))
    assert {int(positives[1]) for _, positives, _ in draws} == {2, 4, 6}
    assert {int(negatives[1]) for _, _, negatives in draws} == {0, 3, 5}


def test_an_image_alone_in_its_class_is_no_anchor() -> None:
    anchors, _, negatives = draw_triplets(torch.tensor([0.0, 0, 1]), seed=0)
    assert anchors.tolist() == [0, 1]
    assert negatives.tolist() == [2, 2]


def test_triplet_loss_is_that_of_the_triplets_drawn() -> None:
    expected = triplets(EMBEDDING, draw_triplets(LABELS, 5), margin=0.5)
    assert expected > 0
    assert triplet_margin(EMBEDDING, LABELS, 0.5, seed=5).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_one_class_has_no_triplets_and_zero_gradients() -> None:
    embedding = EMBEDDING.clone().requires_grad_()
    loss = triplet_margin(embedding, torch.ones(7), 0.5, seed=0)
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad is not None
    assert not embedding.grad.any()


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        (Objective(), lambda: 0),
        (Objective("bce_supcon", alpha=0.3), lambda: 0.3 * contrast(EMBEDDING, LABELS, 0.07)),
        (Objective("supcon", temperature=0.2), lambda: contrast(EMBEDDING, LABELS, 0.2)),
        (Objective("triplet", margin=2), lambda: triplets(EMBEDDING, draw_triplets(LABELS, 9), 2)),
    ],
)
def test_an_objective_is_its_metric_beside_the_cross_entropy(settings: Objective, metric: Callable[[], float]) -> None:
    expected = binary(LOGIT, LABELS.double().numpy()) + metric()
    assert objective(settings)(LOGIT, EMBEDDING, LABELS, 9).item() == pytest.approx(expected, rel=1e-5)


def test_smoothing_reaches_every_objective() -> None:
    targets = np.where(LABELS.numpy() == 1, 0.8, 0.2)
    expected = binary(LOGIT, targets) + contrast(EMBEDDING, LABELS, 0.07)
    ours = objective(Objective("supcon", smoothing=0.2))(LOGIT, EMBEDDING, LABELS, 0)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_a_detached_classifier_learns_and_leaves_the_embedding_to_the_metric() -> None:
    assert [Objective(name).detached for name in ("bce", "bce_supcon", "supcon", "triplet")] == [
        False,
        False,
        True,
        True,
    ]
    classify, embedding = nn.Linear(5, 1), EMBEDDING.clone().requires_grad_()
    objective(Objective("supcon"))(classify(embedding.detach()), embedding, LABELS, 0).backward()
    alone = EMBEDDING.clone().requires_grad_()
    supervised_contrast(alone, LABELS, 0.07).backward()
    assert embedding.grad is not None and alone.grad is not None and classify.weight.grad is not None
    assert torch.equal(embedding.grad, alone.grad)
    assert classify.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("wrong", "said"), [({"smoothing": 0.5}, "smoothing is 0.5"), ({"temperature": 0}, "above 0")])
def test_settings_without_sense_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Objective(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "expected"), [(0.2, 16.24777603149414), (0.1, 15.546135902404785)])
def test_the_objective_of_rine_is_upstreams(factor: float, expected: float) -> None:
    """The sum of the cross-entropy and `factor` times the contrast, as mever-team/rine's own code computed them."""
    count, width = 10, 6
    waves = torch.sin(torch.arange(count * width).double() * 0.7).reshape(count, width)
    logit, embedding = 3 * torch.cos(torch.arange(count).double())[:, None], waves.relu() + 0.1
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1]).float()
    settings = load_recipe("rine", "fit", FitRecipe, {"objective.alpha": factor}).objective
    assert objective(settings, count)(logit.float(), embedding.float(), labels, 0).item() == pytest.approx(expected)


def test_a_sum_goes_over_the_images_of_a_step_however_they_are_shared() -> None:
    """Of two micro-batches, whose losses the loop averages; the cross-entropy alone, which is of each image."""
    settings = Objective(reduction="sum")
    whole = objective(settings, 6)(LOGIT[:6], EMBEDDING[:6], LABELS[:6], 0)
    parts = [objective(settings, 6)(LOGIT[part], EMBEDDING[part], LABELS[part], 0) for part in (slice(3), slice(3, 6))]
    assert sum(parts) / 2 == pytest.approx(whole.item(), rel=1e-6)
    assert whole.item() == pytest.approx(6 * binary(LOGIT[:6], LABELS[:6].double().numpy()), rel=1e-5)


def test_interpolating_logits_of_a_linear_layer_is_interpolating_features() -> None:
    """CO-SPY's feature interpolation, image by image."""
    torch.manual_seed(0)
    layer, features, labels = nn.Linear(6, 1), torch.randn(200, 6), torch.randint(2, (200,)).float()
    settings = Objective(interpolation=0.5, interpolation_alpha=0.2)
    logit, mixed = interpolated(layer(features), labels, settings, seed=3)
    rng = np.random.default_rng(3)
    chosen, partners, own = rng.random(200) < 0.5, rng.integers(200, size=200), rng.beta(0.2, 0.2, 200)
    assert 70 < chosen.sum() < 130
    for image in range(200):
        share = own[image] if chosen[image] else 1.0
        other = partners[image]
        expected = layer(share * features[image] + (1 - share) * features[other])
        torch.testing.assert_close(logit[image], expected, atol=1e-5, rtol=0)
        label = share * labels[image].item() + (1 - share) * labels[other].item()
        assert mixed[image].item() == pytest.approx(label, abs=1e-6)


@pytest.mark.parametrize("settings", [{"interpolation": 1.1}, {"interpolation": 0.5, "interpolation_alpha": 0}])
def test_an_interpolation_that_cannot_be_drawn(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^interpolation.* is "):
        Objective(**settings)
