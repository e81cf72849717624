"""The accuracy check against differences computed image by image."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spai_export.accuracy import sample
from spai_runtime.accuracy import LIMIT, accuracy, examples, sentence
from spai_runtime.accuracy_check import AccuracyCheck, AccuracyError
from spai_runtime.detector import Detector
from spai_runtime.manifest import Accuracy, Spread
from spai_runtime.results import Score
from spai_runtime.views import Resize, Tiles, WholeImage
from spai_train.detectors.spai.model import SPAI
from spai_train.torch_engine import as_detector
from tests.support.images import pixels


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for index, path in enumerate(paths):
        Image.fromarray(pixels(40 + 9 * index, 50 + 5 * index, index)).save(path)
    return paths


def moved(model: SPAI, by: float) -> Detector:
    """A detector whose logits are those of the model, plus `by`."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.head.mlp[-1].bias += by
    return as_detector(model)


def test_differences_are_those_of_single_images(tiny_model: SPAI, photographs: list[Path]) -> None:
    reference, other = as_detector(tiny_model), moved(tiny_model, 0.3)
    scores = [(other.score(path).score, reference.score(path).score) for path in photographs]
    differences = np.abs(np.diff(scores, axis=1))[:, 0]
    found = AccuracyCheck(reference, photographs, "here", "fp32").compare(other)
    p99 = np.sort(differences)[-2] + 0.89 * np.ptp(np.sort(differences)[-2:])
    assert found.score_difference.largest == pytest.approx(differences.max(), rel=5e-3)  # of three digits
    assert found.score_difference.p99 == pytest.approx(p99, rel=5e-3)
    assert found.logit_difference == 0.3
    assert (found.images, found.source) == (12, "here")
    assert found.views == sum(len(reference.score(path).layout) for path in photographs)
    assert found.labels_changed == sum((a > 0.5) != (b > 0.5) for a, b in scores)
    assert not found.passed


def test_the_same_detector_passes(tiny_model: SPAI, photographs: list[Path]) -> None:
    found = AccuracyCheck(as_detector(tiny_model), photographs, "here", "fp32").compare(as_detector(tiny_model))
    assert found.passed
    assert found.score_difference == Spread(0, 0)
    assert (found.logit_difference, found.labels_changed) == (0, 0)


@pytest.mark.parametrize(("largest", "passed"), [(LIMIT, True), (np.nextafter(LIMIT, 1), False), (np.nan, False)])
def test_the_limit(largest: float, passed: bool) -> None:
    layout = Tiles().layout(448, 448)
    expected, found = (Score(value, 0.0, "real", None, layout, 0.0) for value in (0.0, float(largest)))
    assert accuracy([found], [expected], "torch", "here", "fp32").passed is passed


def test_numbers_have_three_digits_and_the_limit_is_held_before_they_are_rounded() -> None:
    layout = Tiles().layout(448, 448)
    scores = [Score(value, logit, "ai", None, layout, 0.0) for value, logit in ((0.010001, 1.23456), (0.0012345, 1.0))]
    expected = [Score(0.0, 0.0, "real", None, layout, 0.0) for _ in scores]
    found = accuracy(scores, expected, "an engine", "a folder", "torch, fp32, cpu")
    assert found == Accuracy(
        against="torch, fp32, cpu",
        engine="an engine",
        images=2,
        views=8,
        source="a folder",
        score_difference=Spread(0.01, 0.00991),
        logit_difference=1.23,
        labels_changed=2,
        limit=0.01,
        passed=False,
    )
    said = "|Δscore| from fp32: at most 1.0e-02, 99th percentile 9.9e-03, 2 labels changed, on 2 images of a folder"
    assert sentence(found) == said


def test_an_image_that_only_the_reference_can_score(tiny_model: SPAI, photographs: list[Path]) -> None:
    with pytest.raises(AccuracyError, match="12 of 12 images get no score in lower precision"):
        AccuracyCheck(as_detector(tiny_model), photographs, "here", "fp32").compare(moved(tiny_model, float("nan")))


def test_images_that_cannot_be_scored_are_left_out(tiny_model: SPAI, photographs: list[Path]) -> None:
    photographs[3].write_bytes(b"no image")
    check = AccuracyCheck(as_detector(tiny_model), photographs, "here", "fp32")
    assert check.paths == photographs[:3] + photographs[4:]
    with pytest.raises(AccuracyError, match="no image of here can be scored: give a folder"):
        AccuracyCheck(as_detector(tiny_model), photographs[3:4], "here", "fp32")


def test_a_sample_keeps_to_its_views(photographs: list[Path]) -> None:
    policy = Tiles(32, 32, 4)
    (photographs[0].parent / "notes.jpg").write_bytes(b"no image")
    views = {path: len(policy.layout(*Image.open(path).size[::-1])) for path in photographs}
    assert sample(photographs[0].parent, policy, 10_000) == sorted(photographs)
    for budget in (5, 20, 40):
        chosen = sample(photographs[0].parent, policy, budget)
        assert chosen == sorted(chosen)
        assert chosen == sample(photographs[0].parent, policy, budget)
        total = sum(views[path] for path in chosen)
        assert total <= budget or len(chosen) == 1
        assert all(total + count > budget for path, count in views.items() if path not in chosen)


def test_a_whole_image_counts_as_many_views_as_it_has_pixels_for(tmp_path: Path) -> None:
    for name, side in (("a", 224), ("b", 448), ("c", 672)):  # 1, 4 and 9 views of 224 × 224
        Image.fromarray(pixels(side, side)).save(tmp_path / f"{name}.png")
    found = {views: sample(tmp_path, WholeImage(), views) for views in (14, 13, 3)}
    assert [len(found[views]) for views in (14, 13)] == [3, 2]
    assert len(sample(tmp_path, WholeImage(Resize(224, "square")), 3)) == 3


def test_an_image_that_the_views_refuse_is_passed_over(tmp_path: Path) -> None:
    """Its shorter side would be made 4,000 pixels long, and its longer one 400,000."""
    Image.fromarray(pixels(2, 200)).save(tmp_path / "a.png")
    Image.fromarray(pixels(20, 20)).save(tmp_path / "b.png")
    assert sample(tmp_path, WholeImage(Resize(4000)), 10**6) == [tmp_path / "b.png"]


def test_the_examples_are_there() -> None:
    assert len(sample(examples(), Tiles(), 10_000)) >= 8
