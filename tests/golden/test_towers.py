"""RINE and ClipDet, which stand on a CLIP that their authors did not train, against upstream's numbers."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import write
from spai_export.source import Source, with_ten_crops
from spai_export.tensorrt.lint import check
from spai_runtime import Detector
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest
from spai_runtime.scoring.batchers import encode
from spai_runtime.views import TenCrop
from spai_train.checkpoint import load_checkpoint, save_checkpoint, save_upstream
from spai_train.torch_engine import as_detector
from tests.golden import FOLDER, IMAGES
from tests.support.commands import spawn

TOWER = FOLDER / "clip_small.safetensors"


@dataclass(frozen=True)
class Published:
    """A detector's trained part in its authors' layout, and what their code says."""

    name: str
    checkpoint: Path

    def number(self, key: str) -> NDArray[np.float32]:
        return _numbers(self.checkpoint.with_name(f"{self.name}_small_expected.npz"))[key]

    @property
    def logits(self) -> list[float]:
        return [float(self.number(f"{index}/logit")[0]) for index in range(len(IMAGES))]


@cache
def _numbers(path: Path) -> Mapping[str, NDArray[np.float32]]:
    with np.load(path) as arrays:
        return dict(arrays)


RINE = Published("rine", FOLDER / "rine" / "rine_small_trainable.pth")
CLIPDET = Published("clipdet", FOLDER / "clipdet" / "clipdet_small.pth")
FEATURES = {"rine": "embedding", "clipdet": "features"}  # what upstream's numbers call what the encoder gives
BOTH = pytest.mark.parametrize("published", [RINE, CLIPDET], ids=["rine", "clipdet"])


def logits(detector: Detector) -> list[float]:
    return [detector.score(path).logit for path in IMAGES]


@BOTH
def test_in_torch(published: Published) -> None:
    checkpoint = load_checkpoint(published.checkpoint, tower=TOWER)
    detector = as_detector(checkpoint.model())
    assert checkpoint.detector.name == published.name
    assert np.std(published.logits) > 1, "or any answer would do"
    assert logits(detector) == pytest.approx(published.logits, abs=1e-4)
    for index, path in enumerate(IMAGES):
        (features,) = encode(detector.encoder, detector.manifest, Picture.open(path)).features
        np.testing.assert_allclose(
            features, published.number(f"{index}/{FEATURES[published.name]}"), rtol=1e-5, atol=1e-5
        )


def test_ten_crops() -> None:
    """Upstream's Synthbuster setting: the mean of ten logits. Its code takes no image that is smaller than a crop."""
    checkpoint = load_checkpoint(RINE.checkpoint, tower=TOWER)
    detector = as_detector(checkpoint.model())
    detector.manifest = with_ten_crops(detector.manifest, checkpoint.detector)
    large = [
        index for index, path in enumerate(IMAGES) if min(Picture.open(path).height, Picture.open(path).width) >= 224
    ]
    found = [detector.score(IMAGES[index]).logit for index in large]
    assert len(large) == 5
    assert found == pytest.approx([float(RINE.number(f"{index}/ten_crop")[0]) for index in large], abs=1e-4)


@pytest.fixture(scope="module", params=[RINE, CLIPDET], ids=["rine", "clipdet"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, Path]:
    """In three precisions, whose scores were compared with those of fp32 on the golden images."""
    published: Published = request.param
    precisions = Precision.FP32, Precision.FP16, Precision.BF16
    settings = Settings(precisions, Attention.PLAIN, images=FOLDER / "images")
    output = tmp_path_factory.mktemp("exported") / published.name
    write(Source.load(published.checkpoint, settings, tower=TOWER), output)
    return published, output


def test_through_the_exported_graphs(exported: tuple[Published, Path]) -> None:
    published, directory = exported
    with Detector.load(directory / "encoder.onnx", device="cpu") as detector:
        assert logits(detector) == pytest.approx(published.logits, abs=1e-4)
    with Detector.load(directory / "encoder.fp16.onnx", device="cpu") as detector:
        assert logits(detector) == pytest.approx(published.logits, abs=0.05)


def test_the_precisions_passed_and_tensorrt_takes_the_graphs(exported: tuple[Published, Path]) -> None:
    _, directory = exported
    manifest = Manifest.load(directory)
    found = {artifact.precision: artifact.accuracy for artifact in manifest.artifacts}
    assert found["fp32"] is None
    assert [accuracy.passed for accuracy in found.values() if accuracy] == [True, True]
    assert manifest.provenance["tower"] == TOWER.name
    for path in directory.glob("*.onnx"):
        assert check(path) == []


def test_through_spai_run(exported: tuple[Published, Path]) -> None:
    published, directory = exported
    ran = spawn(*IMAGES, "--engine", directory / "encoder.onnx", "--device", "cpu", "--precision", "fp32")
    rows = list(csv.DictReader(StringIO(ran.stdout)))
    assert ran.code == 0, ran.stderr
    assert [float(row["logit"]) for row in rows] == pytest.approx(published.logits, abs=1e-4)


def test_ten_crops_through_spai_export(tmp_path: Path) -> None:
    source = Source.load(RINE.checkpoint, Settings(ten_crop=True), tower=TOWER)
    directory = write(source, tmp_path / "ten").directory
    with Detector.load(directory, device="cpu") as detector:
        assert detector.manifest.views == TenCrop(224)
        assert detector.score(IMAGES[4]).logit == pytest.approx(float(RINE.number("4/ten_crop")[0]), abs=1e-4)


@BOTH
def test_files_of_both_kinds(published: Published, tmp_path: Path) -> None:
    """Ours holds the tower, upstream's does not."""
    first = load_checkpoint(published.checkpoint, tower=TOWER)
    save_checkpoint(tmp_path / "ours.safetensors", first.model(), first.card)
    second = load_checkpoint(tmp_path / "ours.safetensors")
    assert second.config == first.config
    assert all(torch.equal(tensor.float(), second.state[name]) for name, tensor in first.state.items())
    save_upstream(tmp_path / "theirs.pth", second.model())
    theirs, wanted = (torch.load(path, weights_only=True) for path in (tmp_path / "theirs.pth", published.checkpoint))
    theirs, wanted = (content.get("model", content) for content in (theirs, wanted))
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in wanted.items())
