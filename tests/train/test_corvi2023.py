"""Corvi2023 against the logits of upstream's own code, which `tests/golden/README.md` describes."""

import csv
import json
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cpu.children import finish, start
from PIL import Image
from torch import Tensor

from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import export
from spai_export.precision import cast
from spai_export.tensorrt.lint import check
from spai_runtime import Detector
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest
from spai_runtime.scoring.batchers import encode
from spai_runtime.views import WholeImage, Window
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint, save_upstream
from spai_train.detectors.corvi2023 import SIDE, SPEC, Corvi2023, Corvi2023Config
from spai_train.tensors import CheckpointError
from spai_train.torch_engine import as_detector
from tests.golden import FOLDER, IMAGES
from tests.support.commands import spawn
from tests.support.images import pixels

State = dict[str, Tensor]
SMALLEST = Window(168, 56, 56, 8)  # whose inner windows keep one patch


def golden() -> tuple[State, list[float]]:
    """Upstream's tensors, under its names, and its logits of IMAGES."""
    with np.load(FOLDER / "corvi2023_small.npz") as arrays:
        state = {name.removeprefix("model/"): arrays[name] for name in arrays if name.startswith("model/")}
        weights = {name: t / np.float32(64) if t.dtype == np.int8 else t for name, t in state.items()}
        tensors = {
            name: torch.from_numpy(t.astype(np.int64 if t.ndim == 0 else np.float32)) for name, t in weights.items()
        }
        return tensors, arrays["logits"].tolist()


STATE, LOGITS = golden()
FEW = [0, 1, 5, 6]  # images of few pixels, one of them two windows long, for what would take long


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a training that keeps its optimizer writes it."""
    path = tmp_path_factory.mktemp("corvi2023") / "weights.pth"
    torch.save({"model": STATE, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def test_the_logits_are_upstreams(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert (loaded.detector.name, loaded.config) == ("corvi2023", Corvi2023Config(width=8))
    assert np.std(LOGITS) > 1
    detector = as_detector(loaded.model())
    assert [detector.score(path).logit for path in IMAGES] == pytest.approx(LOGITS, abs=1e-4)


def test_the_logits_in_the_smallest_windows(checkpoint: Path) -> None:
    detector = as_detector(load_checkpoint(checkpoint).model())
    detector.manifest = replace(detector.manifest, views=WholeImage(window=SMALLEST))
    found = [detector.score(IMAGES[index]).logit for index in FEW]
    assert found == pytest.approx([LOGITS[index] for index in FEW], abs=1e-4)


def test_windows_are_the_whole_image_at_every_border(checkpoint: Path) -> None:
    """Sides around multiples of a cell, a patch and a window."""
    model = load_checkpoint(checkpoint).model()
    detector = as_detector(model)
    detector.manifest = replace(detector.manifest, views=WholeImage(window=SMALLEST))
    sides = [(168, 169), (175, 225), (224, 9), (280, 30), (31, 281), (8, 337)]
    for height, width in sides:
        image = pixels(height, width)
        with torch.inference_mode():
            cells = model.encoder.network(model.encoder.pixels(torch.from_numpy(image)[None]))
            expected = model.head(cells.mean(dim=(2, 3))[None]).item()
        assert detector.score(image).logit == pytest.approx(expected, abs=1e-4), (height, width)


@pytest.mark.parametrize(
    ("row", "reached"), [(167, [False, False, True, True, False]), (168, [False, False, True, True, True])]
)
def test_a_pixel_reaches_as_far_as_the_halo_and_no_further(checkpoint: Path, row: int, reached: list[bool]) -> None:
    """56 pixels from a cell: those at 112 to 216, the last of two patches, and of the next the first, at 224."""
    model = load_checkpoint(checkpoint).model()
    image = pixels(280, 8)
    other = image.copy()
    other[row] ^= 255
    with torch.inference_mode():
        before, after = (model.encoder(torch.from_numpy(rows)[None]) for rows in (image, other))
    assert (before != after).any(dim=1).tolist() == reached


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(attention=Attention.PLAIN)
    return export(checkpoint, tmp_path_factory.mktemp("exported") / "model", settings).directory


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_through_the_exported_graphs(exported: Path, backend: str) -> None:
    with Detector.load(exported / "encoder.onnx", device="cpu", backend=backend, precision="fp32") as detector:
        found = [detector.score(IMAGES[index]).logit for index in FEW]
    assert found == pytest.approx([LOGITS[index] for index in FEW], abs=1e-4)


def test_what_the_directory_says(exported: Path) -> None:
    manifest = Manifest.load(exported)
    assert (manifest.schema, manifest.views) == (4, WholeImage(window=Window(616, 56, 56, 8)))
    assert b'"schema": 4' in (exported / "detector.json").read_bytes()
    assert check(exported / "encoder.onnx") == []


def test_through_spai_run(exported: Path) -> None:
    ran = spawn(
        *(IMAGES[index] for index in FEW),
        "--engine",
        exported / "encoder.onnx",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    rows = list(csv.DictReader(StringIO(ran.stdout)))
    assert (ran.code, {row["views"] for row in rows}) == (0, {"1"}), ran.stderr
    assert [float(row["logit"]) for row in rows] == pytest.approx([LOGITS[index] for index in FEW], abs=1e-4)


def windowed(exported: Path, contender: str, image: Path, side: str) -> Any:
    """What `benchmarks/windowed_run.py` says of an image in windows of a side."""
    written, _ = finish(start("windowed_run", [str(exported), contender, str(image), side]))
    return json.loads(written)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_memory_of_windows(exported: Path, tmp_path: Path) -> None:
    """The largest maps are 64 channels of all pixels: three are there at once, and no second set of them."""
    found = {}
    for side in (8, SIDE):
        Image.fromarray(pixels(side, side)).save(tmp_path / "x.png")
        found[side] = windowed(exported, "ONNX Runtime fp32", tmp_path / "x.png", str(SIDE if side > 8 else 168))
    grown = 1e6 * (found[SIDE]["beside_pixels_mb"] - found[8]["beside_pixels_mb"])
    print(f"{grown / (64 * 4 * SIDE**2):.2f} maps")  # noqa: T201
    assert 1 < grown / (64 * 4 * SIDE**2) < 3.5


def test_the_benchmark_of_windows(exported: Path) -> None:
    row = windowed(exported, "OpenVINO fp32", IMAGES[2], "168")
    assert (row["height"], row["width"], row["window"], row["windows"]) == (300, 500, 168, 28)
    computed = (168 + 168 + 168 + 132) * (168 * 6 + 164)  # each starts 56 pixels after the one before
    assert row["computed_pixels"] == pytest.approx(computed / (300 * 500))
    assert row["logit"] == pytest.approx(LOGITS[2], abs=1e-4)
    arithmetic = {"seconds": "window_s", "cpu_seconds": "window_cpu_s"}
    for name, (whole, one) in zip(("ratio", "ratio_of_cpu_time"), arithmetic.items(), strict=True):
        assert row[name] == pytest.approx(row[whole] / (row[one] * computed / 168**2))
        assert row[name] > 0


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision(checkpoint: Path, precision: Precision) -> None:
    """BatchNorms with statistics far from 0 and 1 became part of the convolutions before they were rounded."""
    model = load_checkpoint(checkpoint).model()
    detector = as_detector(model)
    expected, picture = encode(detector.encoder, detector.manifest, Picture.open(IMAGES[1])).features, IMAGES[1]
    model.encoder = cast(SPEC, model.encoder, precision)  # type: ignore[assignment]
    halved = as_detector(model)
    features = encode(halved.encoder, halved.manifest, Picture.open(picture)).features
    assert 0 < float(np.abs(features - expected).max()) < 3e-2 * float(np.abs(expected).max())


def test_files_of_both_kinds(checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "ours.safetensors", first.model(), Card("mine"))
    save_upstream(tmp_path / "theirs.pth", load_checkpoint(tmp_path / "ours.safetensors").model())
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["model"]
    assert theirs.keys() == STATE.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in STATE.items())
    torch.save({"model": first.state}, tmp_path / "ours.pth")
    assert load_checkpoint(tmp_path / "ours.pth").state.keys() == first.state.keys()


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"net": STATE},
        {"model": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {"model": STATE, "state_dict": {"other": torch.zeros(1)}, "net": {"other": torch.zeros(1)}},
    ],
    ids=["bare", "state_dict", "net", "parallel", "model first"],
)
def test_files_that_upstreams_load_weights_takes(checkpoint: Path, content: object, tmp_path: Path) -> None:
    """Of its keys, the first that a file has: `model`, `state_dict`, `net`, or none."""
    torch.save(content, tmp_path / "x.pth")
    first, loaded = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "x.pth")
    assert (loaded.detector.name, loaded.state.keys()) == ("corvi2023", first.state.keys())
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in first.state.items())


def test_a_wrapper_without_a_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": [1, 2]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth holds a list where its `state_dict` should be a state dict$"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("fc.weight", None, r"looks like no known detector \(.*; for spai, "),
        ("fc.weight", torch.zeros(1000, 256), r"looks like no known detector \(.*; for spai, "),  # ImageNet's
        ("fc.bias", None, r"it is missing head\.linear\.bias$"),
        ("layer1.0.conv1.weight", None, r"it is missing encoder\.network\.layer1\.0\.conv1\.weight$"),
        ("layer4.2.bn3.running_var", torch.full((256,), torch.nan), "running_var holds numbers that are not finite$"),
        (
            "layer4.2.conv3.weight",
            torch.zeros(8, 8, 1, 1),
            r"other shapes in encoder\.network\.layer4\.2\.conv3\.weight",
        ),
    ],
)
def test_what_does_not_fit(name: str, tensor: Tensor | None, message: str, tmp_path: Path) -> None:
    state = {key: value for key, value in {**STATE, name: tensor}.items() if value is not None}
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.pth")


def test_the_published_network_has_the_tensors_of_a_resnet_50() -> None:
    """Of torchvision's, with one class; what lies upstream is that times three (Adam's two moments), and some names."""
    with torch.device("meta"):
        model = Corvi2023(Corvi2023Config())
    assert sum(tensor.numel() for tensor in model.parameters()) == 23_510_081
    assert 0 < 282_549_121 - 3 * 4 * 23_510_081 < 1 << 20
