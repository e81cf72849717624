"""Mutated detector.json and graphs: a detector that scores, or one UserError of one line, in bounded time."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from spai_runtime import Detector
from tests.fuzz.attempts import one_line_at_most
from tests.fuzz.mutation import Change, Edit, as_json, changed, changes, edits, limits, mutated
from tests.support.images import pixels
from tests.support.manifests import edit

IMAGE = pixels(41, 53)


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector, tmp_path / "detector"))


def attempt(directory: Path, *, untrusted: bool = False) -> None:
    with one_line_at_most(), Detector.load(directory, device="cpu", untrusted=untrusted) as detector:
        score = detector.score(IMAGE)
        assert 0 <= score.score <= 1
        assert np.isfinite(score.logit)


def test_mutated_values_of_a_manifest(directory: Path) -> None:
    path = directory / "detector.json"
    whole: Any = json.loads(path.read_bytes())
    whole["calibration"] = {"method": "isotonic", "logits": [-1.0, 2.5], "scores": [0.25, 0.75], "source": "here"}

    @limits(examples=400)
    @given(made=changes())
    def fuzz(made: list[Change]) -> None:
        path.write_text(as_json(changed(whole, made)))
        attempt(directory)

    fuzz()


def test_mutated_bytes_of_a_manifest(directory: Path) -> None:
    path = directory / "detector.json"
    whole = path.read_bytes()

    @limits(examples=300)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        path.write_bytes(mutated(whole, made))
        attempt(directory)

    fuzz()


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_mutated_graphs(directory: Path, name: str) -> None:
    """As a stranger's, for a crash in ONNX Runtime would end this very process."""
    path = directory / name
    whole = path.read_bytes()

    @limits(examples=6)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        path.write_bytes(mutated(whole, made))
        edit(directory)
        attempt(directory, untrusted=True)

    fuzz()
