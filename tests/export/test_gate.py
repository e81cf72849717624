"""The accuracy gate against differences computed image by image."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spai_export.gate import LIMIT, Deviation, Gate, examples, sample
from spai_export.onnx import ExportError
from spai_runtime.detector import Detector
from spai_runtime.views import Tiles
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
    found = Gate(reference, photographs, "here").hold(other)
    assert found.largest == pytest.approx(differences.max(), rel=1e-6)
    assert found.p99 == pytest.approx(np.sort(differences)[-2] + 0.89 * np.ptp(np.sort(differences)[-2:]), rel=1e-6)
    assert found.logit == pytest.approx(0.3, rel=1e-4)
    assert (found.images, found.source) == (12, "here")
    assert found.views == sum(len(reference.score(path).layout) for path in photographs)
    assert found.labels == sum((a > 0.5) != (b > 0.5) for a, b in scores)
    assert not found.passed


def test_the_same_detector_passes(tiny_model: SPAI, photographs: list[Path]) -> None:
    found = Gate(as_detector(tiny_model), photographs, "here").hold(as_detector(tiny_model))
    assert found.passed
    assert (found.largest, found.p99, found.logit, found.labels) == (0, 0, 0, 0)


@pytest.mark.parametrize(("largest", "passed"), [(LIMIT, True), (np.nextafter(LIMIT, 1), False), (np.nan, False)])
def test_the_limit(largest: float, passed: bool) -> None:
    assert Deviation(1, 4, "here", "torch", float(largest), 0.0, 0.0, 0).passed is passed


def test_an_image_that_only_the_reference_can_score(tiny_model: SPAI, photographs: list[Path]) -> None:
    with pytest.raises(ExportError, match="12 of 12 images get no score in lower precision"):
        Gate(as_detector(tiny_model), photographs, "here").hold(moved(tiny_model, float("nan")))


def test_images_that_cannot_be_scored_are_left_out(tiny_model: SPAI, photographs: list[Path]) -> None:
    photographs[3].write_bytes(b"no image")
    gate = Gate(as_detector(tiny_model), photographs, "here")
    assert gate.paths == photographs[:3] + photographs[4:]
    with pytest.raises(ExportError, match="no image of here can be scored; give --calibrate"):
        Gate(as_detector(tiny_model), photographs[3:4], "here")


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


def test_the_examples_are_there() -> None:
    assert len(sample(examples(), Tiles(), 10_000)) >= 8
