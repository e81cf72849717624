"""A detector loads what was exported, refuses anything else, and computes what upstream does."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spai_runtime import Detector, EngineError, ImageError, ManifestError, Score
from spai_runtime.detector import demo_directory
from spai_runtime.images import Picture
from spai_train.detectors.spai.model import SPAI
from tests import golden
from tests.support.images import Write, pixels
from tests.support.manifests import edit

EXPECTED = np.load(golden.FOLDER / "spai_small_expected.npz")
IMAGES = sorted((golden.FOLDER / "images").iterdir())


@pytest.fixture(scope="module")
def tiny(tiny_detector: Path) -> Detector:
    return Detector.load(tiny_detector, device="cpu")


@pytest.fixture(scope="module")
def golden(golden_detector: Path) -> Detector:
    return Detector.load(golden_detector, device="cpu")


@pytest.fixture
def copied(tiny_detector: Path, tmp_path: Path) -> Path:
    """An exported directory to spoil."""
    return Path(shutil.copytree(tiny_detector, tmp_path / "m"))


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_upstreams_numbers(golden: Detector, path: Path) -> None:
    key = path.stem.split("_")[1]
    picture = Picture.open(path).load()
    layout = golden.layout(picture.height, picture.width)
    (features,) = golden.encoder.run(layout.stack(picture))
    (score,) = golden.score_features([features], [layout])
    assert isinstance(score, Score)
    assert (score.layout.grid is None) == bool(EXPECTED[f"{key}/five_crop"])
    np.testing.assert_allclose(features, EXPECTED[f"{key}/features"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(score.attention, EXPECTED[f"{key}/attention"].mean(axis=0), rtol=0, atol=1e-5)
    assert score.logit == pytest.approx(EXPECTED[f"{key}/logit"].item(), abs=1e-4)
    assert score.score == pytest.approx(1 / (1 + math.exp(-EXPECTED[f"{key}/logit"].item())), abs=1e-4)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_upstreams_views(golden: Detector, path: Path) -> None:
    picture = Picture.open(path).load()
    views = golden.manifest.views.layout(picture.height, picture.width).stack(picture)
    sums = (views / 255).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(sums, EXPECTED[f"{path.stem.split('_')[1]}/tiles_sum"], rtol=1e-6)


def test_a_score_is_torchs(tiny: Detector, tiny_model: SPAI) -> None:
    image = pixels(64, 96)
    views = image.reshape(2, 32, 3, 32, 3).swapaxes(1, 2).reshape(1, 6, 32, 32, 3)
    with torch.inference_mode():
        logit, attention, _ = (value.numpy() for value in tiny_model(torch.from_numpy(views)))
    score = tiny.score(image)
    assert score.logit == pytest.approx(logit.item(), abs=1e-4)
    assert score.attention_grid is not None
    np.testing.assert_allclose(score.attention_grid, attention.reshape(2, 3), atol=1e-5)
    assert score.attention.sum() == pytest.approx(1, abs=1e-6)


def test_an_image_of_pillows(tiny: Detector, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    for mode in ("RGB", "L", "RGBA"):
        with Image.open(path) as image:
            converted = image.convert(mode)
        assert tiny.score(converted).logit == tiny.score(np.asarray(converted.convert("RGB"))).logit
        assert converted.mode == mode
    with Image.open(path) as image:
        assert tiny.score(image).logit == tiny.score(path).logit
        assert image.size == (90, 70)
    with pytest.raises(ImageError):
        tiny.score(Image.new("F", (8, 8)))


def test_paths_bytes_and_pixels_are_the_same_image(tiny: Detector, photo: Write) -> None:
    path = photo("a.png", 64, 70)
    scores = [tiny.score(source) for source in (path, str(path), path.read_bytes(), pixels(64, 70))]
    assert {(score.score, score.logit, score.label) for score in scores} == {(scores[0].score, scores[0].logit, "ai")}


def test_five_crops_are_no_grid(tiny: Detector) -> None:
    score = tiny.score(pixels(40, 50))
    assert (score.attention_grid, len(score.attention)) == (None, 5)


@pytest.mark.parametrize("logit", [0.0, -2.5, 700.0, -700.0, 1e30, -1e30])
def test_score_is_the_sigmoid_of_the_logit(tiny: Detector, monkeypatch: pytest.MonkeyPatch, logit: float) -> None:
    outputs = [np.array([[logit]], np.float32), np.full((1, 5), 0.2, np.float32)]
    monkeypatch.setattr(tiny.head, "run", lambda _: outputs)
    score = tiny.score(pixels(8, 8))
    assert score.score == pytest.approx(float(torch.sigmoid(torch.tensor(logit, dtype=torch.float64))), rel=1e-7)
    assert 0 <= score.score <= 1
    assert score.label == ("ai" if logit > 0 else "real")  # the threshold is 0.5, and 0.5 is not above it


CURVE = {"method": "isotonic", "logits": [-1, 0, 2], "scores": [0.125, 0.25, 0.75], "source": "test"}


@pytest.mark.parametrize(
    ("logit", "score"), [(-1e30, 0.125), (-1.0, 0.125), (-0.5, 0.1875), (0.5, 0.375), (2.0, 0.75), (1e30, 0.75)]
)
def test_an_isotonic_score(copied: Path, monkeypatch: pytest.MonkeyPatch, logit: float, score: float) -> None:
    """Straight between the points, level beyond them; the logit stays as the head said it."""
    edit(copied, calibration=CURVE, threshold={"value": 0.375, "source": "test"})
    found = judged(copied, monkeypatch, logit)
    assert found.score == score
    assert found.logit == pytest.approx(logit)
    assert found.label == ("ai" if score > 0.375 else "real")


@pytest.mark.parametrize("logit", [-300.0, -1.5, 0.0, 0.25, 40.0, 1e30])
def test_a_platt_score(copied: Path, monkeypatch: pytest.MonkeyPatch, logit: float) -> None:
    edit(copied, calibration={"method": "platt", "a": 2.0, "b": -0.5, "source": "test"})
    found = judged(copied, monkeypatch, logit)
    expected = float(torch.sigmoid(torch.tensor(2 * logit - 0.5, dtype=torch.float64)))
    assert found.score == pytest.approx(expected, rel=1e-7)
    assert found.score == float(f"{found.score:.8g}")
    assert found.label == ("ai" if logit > 0.25 else "real")  # the score of 0.25 is the threshold, 0.5


def judged(directory: Path, monkeypatch: pytest.MonkeyPatch, logit: float) -> Score:
    """What a detector says when its head says this."""
    outputs = [np.array([[logit]], np.float32), np.full((1, 5), 0.2, np.float32)]
    with Detector.load(directory, device="cpu") as detector:
        monkeypatch.setattr(detector.head, "run", lambda _: outputs)
        return detector.score(pixels(8, 8))


def test_a_threshold_is_strict_and_says_where_it_came_from(tiny_detector: Path) -> None:
    def label(threshold: float) -> str:
        with Detector.load(tiny_detector, device="cpu", threshold=threshold) as detector:
            assert (detector.threshold.value, detector.threshold.source) == (threshold, "given by the user")
            return detector.score(pixels(40, 40)).label

    with Detector.load(tiny_detector, device="cpu") as detector:
        score: Score = detector.score(pixels(40, 40))
        assert detector.threshold == detector.manifest.threshold
    below = math.nextafter(score.score, 0)
    assert (label(score.score), label(below), label(0.0), label(1.0)) == ("real", "ai", "ai", "real")


def test_a_sliver_that_padding_would_blow_up(tiny: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert tiny.score(pixels(1, 100)).layout.width == 100  # 32 × 100 when padded
    with pytest.raises(ImageError, match="101×1 pixels would be padded past the limit of 3200 pixels; crop it"):
        tiny.score(pixels(1, 101))


@pytest.mark.parametrize("name", ["", "encoder.onnx", "head.onnx"])
def test_a_directory_or_a_graph_in_it(tiny_detector: Path, name: str) -> None:
    with Detector.load(tiny_detector / name, device="cpu") as detector:
        assert detector.manifest.name == "tiny"


def test_what_is_missing_is_named(copied: Path) -> None:
    cases = {copied / "nowhere": "spai-export --ckpt CHECKPOINT", copied.parent: "there is no detector.json in"}
    (copied / "other.onnx").touch()
    cases[copied / "other.onnx"] = "is not a graph of"
    for path, message in cases.items():
        with pytest.raises(EngineError, match=message):
            Detector.load(path)
    (copied / "head.onnx").unlink()
    with pytest.raises(EngineError, match=r"head\.onnx is missing in .*m; copy it there or export again"):
        Detector.load(copied / "encoder.onnx")


def test_swapped_graphs(copied: Path) -> None:
    (copied / "encoder.onnx").rename(copied / "x")
    (copied / "head.onnx").rename(copied / "encoder.onnx")
    (copied / "x").rename(copied / "head.onnx")
    with pytest.raises(EngineError, match="sha256 differs"):
        Detector.load(copied)
    edit(copied)
    with pytest.raises(EngineError, match=r"encoder.onnx does not match detector.json: it should have views uint8"):
        Detector.load(copied)


@pytest.mark.parametrize("changes", [{"features": 21}, {"views": {"policy": "tiles", "size": 33, "stride": 33}}])
def test_another_geometry(copied: Path, changes: dict[str, Any]) -> None:
    edit(copied, **changes)
    with pytest.raises(EngineError, match=r"does not match detector\.json"):
        Detector.load(copied)


def test_a_changed_byte(copied: Path) -> None:
    content = bytearray((copied / "head.onnx").read_bytes())
    content[-1] ^= 1
    (copied / "head.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"head\.onnx is not the file .* \(sha256 differs\); export again"):
        Detector.load(copied)


def test_a_graph_outside_the_directory(copied: Path) -> None:
    artifact = json.loads((copied / "detector.json").read_bytes())["artifacts"][0]
    artifact["head"]["file"] = os.path.join("..", copied.name, "head.onnx")  # noqa: PTH118
    edit(copied, artifacts=[artifact])
    with pytest.raises(ManifestError, match=r"is not a detector\.json"):
        Detector.load(copied)


def test_a_closed_detector_is_an_error(tiny_detector: Path) -> None:
    with Detector.load(tiny_detector, device="cpu") as detector:
        pass
    with pytest.raises(AttributeError):
        detector.score(pixels(8, 8))


def test_the_demo_is_found_in_a_wheel_and_in_a_checkout() -> None:
    import spai_runtime  # noqa: PLC0415

    package = Path(spai_runtime.__file__).parent
    assert demo_directory() in (package / "demo", package.parent / "weights" / "demo")
