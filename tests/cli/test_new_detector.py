"""What a new detector costs: one file (tests/support/resnet.py) and one row, and every command knows it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from spai_export.cli import main as spai_export
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.cli import main as spai_train
from spai_train.detectors import DETECTORS
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.resnet import SPEC, ResNet, ResNetConfig

SIZES = [(90, 130), (40, 200), (64, 64), (20, 30), (300, 77), (120, 80)]


@pytest.fixture
def resnet() -> ResNet:
    torch.manual_seed(0)
    model = ResNet(ResNetConfig())
    torch.nn.init.normal_(model.head.fc.weight, std=0.1)
    return model.eval()


@pytest.fixture
def desk(resnet: ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its checkpoint, and images of two classes in a table."""
    monkeypatch.setitem(DETECTORS, SPEC.name, "tests.support.resnet")
    save_checkpoint(tmp_path / "resnet.safetensors", resnet, Card(name="mine"))
    (tmp_path / "photos").mkdir()
    lines = ["image,class,split"]
    for seed, (height, width) in enumerate(SIZES):
        Image.fromarray(pixels(height, width, seed)).save(tmp_path / "photos" / f"{seed}.png")
        lines.append(f"photos/{seed}.png,{seed % 2},test")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def expected(model: ResNet, path: Path) -> float:
    """The logit by torchvision's transforms of PIL images, in torch."""
    with Image.open(path) as image:
        crop = F.center_crop(F.resize(image, [80], F.InterpolationMode.BILINEAR), [64, 64])
    views = torch.from_numpy(np.array(crop)[None])
    with torch.inference_mode():
        return float(model.head(model.encoder(views)[None]))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_from_a_checkpoint_to_scores(desk: Path, resnet: ResNet, run: Run, tiny_detector: Path) -> None:
    exported = desk / "mine"
    options = ["--detector", "resnet18", "--precision", "fp32", "--precision", "fp16", "--images", str(desk / "photos")]
    assert spai_export(["--ckpt", str(desk / "resnet.safetensors"), "--output", str(exported), *options]) == 0
    manifest = json.loads((exported / "detector.json").read_bytes())
    assert (manifest["detector"], manifest["attention"], manifest["notice"]) == ("resnet18", False, SPEC.notice)
    assert [artifact["precision"] for artifact in manifest["artifacts"]] == ["fp32", "fp16"]

    ran = run(desk / "photos", "--engine", exported, "--output", desk / "alone.csv")
    assert (ran.code, ran.stderr) == (0, "")
    alone = rows(desk / "alone.csv")
    assert list(alone[0]) == ["path", "score", "logit", "label", "width", "height", "views", "error"]
    for row in alone:
        assert float(row["logit"]) == pytest.approx(expected(resnet, Path(row["path"])), abs=1e-4)
        assert row["views"] == "1"

    engines = ["--engine", exported, "--engine", tiny_detector]
    ran = run(desk / "photos", *engines, "--fuse", "mean_logit", "--output", desk / "both.csv")
    assert (ran.code, ran.stderr) == (0, "")
    both = rows(desk / "both.csv")
    groups = [f"{name}_{column}" for name in ("mine", "tiny") for column in ("score", "logit", "label")]
    assert list(both[0]) == ["path", *groups, "fusion_score", "fusion_label", "width", "height", "error"]
    for row, single in zip(both, alone, strict=True):
        assert row["mine_logit"] == single["logit"]
        mean = (float(row["mine_logit"]) + float(row["tiny_logit"])) / 2
        assert float(row["fusion_score"]) == pytest.approx(1 / (1 + np.exp(-mean)), rel=1e-7)

    for source in (["--engine", str(exported)], ["--ckpt", str(desk / "resnet.safetensors")]):
        output = desk / f"evaluated-{source[0][2:]}"
        assert spai_train(["evaluate", str(desk / "images.csv"), *source, "--output", str(output)]) == 0
        assert json.loads((output / "metrics.json").read_text())["detector"]["method"] == "resnet18"
        found = [float(row["logit"]) for row in rows(output / "scores.csv")]
        assert found == pytest.approx([float(row["logit"]) for row in alone], abs=1e-4)


def test_a_checkpoint_of_another_detector_is_named(
    desk: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, asked in ((desk / "resnet.safetensors", "spai"), (tiny_checkpoint, "resnet18")):
        assert spai_export(["--ckpt", str(path), "--detector", asked, "--output", str(desk / "m")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "resnet.safetensors is a checkpoint of resnet18, not of spai: give --detector resnet18" in said[0]
    assert "tiny.safetensors is a checkpoint of spai, not of resnet18: give --detector spai" in said[1]
    assert not (desk / "m").exists()


def test_it_is_small() -> None:
    files = Path(__file__), Path(__file__).parents[1] / "support" / "resnet.py"
    detector, test = (len(file.read_text().splitlines()) for file in files[::-1])
    assert detector <= 150, "the price of a detector, which DESIGN.md promises"
    assert test <= 150
