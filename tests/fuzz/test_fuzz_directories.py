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
from tests.support.small_graphs import WIDTH, write_encoder, write_head

IMAGE = pixels(41, 53)


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector, tmp_path / "detector"))


@pytest.fixture
def of_small_graphs(directory: Path) -> Path:
    """The same directory with graphs of two nodes, which load at once."""
    views = json.loads((directory / "detector.json").read_bytes())["views"]
    write_encoder(directory / "encoder.onnx", sides=(views["size"], views["size"]))
    write_head(directory / "head.onnx")
    edit(directory, features=WIDTH)
    with Detector.load(directory, device="cpu") as detector:
        assert detector.score(IMAGE).logit == pytest.approx(IMAGE.mean(), rel=0.05), "colours, over five crops"
    return directory


def attempt(directory: Path, *, untrusted: bool = False) -> None:
    with one_line_at_most(), Detector.load(directory, device="cpu", untrusted=untrusted) as detector:
        score = detector.score(IMAGE)
        assert 0 <= score.score <= 1
        assert np.isfinite(score.logit)


def test_mutated_values_of_a_manifest(of_small_graphs: Path) -> None:
    path = of_small_graphs / "detector.json"
    whole: Any = json.loads(path.read_bytes())
    whole["calibration"] = {"method": "isotonic", "logits": [-1.0, 2.5], "scores": [0.25, 0.75], "source": "here"}

    @limits(examples=400)
    @given(made=changes())
    def fuzz(made: list[Change]) -> None:
        path.write_text(as_json(changed(whole, made)))
        attempt(of_small_graphs)

    fuzz()


def test_mutated_bytes_of_a_manifest(of_small_graphs: Path) -> None:
    path = of_small_graphs / "detector.json"
    whole = path.read_bytes()

    @limits(examples=300)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        path.write_bytes(mutated(whole, made))
        attempt(of_small_graphs)

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
