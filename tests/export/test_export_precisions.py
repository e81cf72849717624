"""`spai-export --precision`: what is written, what is held against fp32, and what is refused."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from PIL import Image

from spai_export import verify
from spai_export.choices import Attention, Precision
from spai_export.cli import main
from spai_export.directory import Exported, Settings, export
from spai_export.gate import LIMIT
from spai_export.lint import lint
from spai_export.onnx import ExportError
from spai_export.verify import Differences
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.detectors.spai.model import SPAI
from spai_train.torch_engine import as_detector
from tests.golden import CHECKPOINT, IMAGES, expected
from tests.support.commands import Run
from tests.support.images import pixels

GOLDEN_SCORES = [float(1 / (1 + np.exp(-expected(f"{index}/logit").item()))) for index in range(len(IMAGES))]


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("fp16")
    return export(CHECKPOINT, folder / "m", Settings(Precision.FP16, images=IMAGES[0].parent))


def types(path: Path) -> set[int]:
    """Of the initializers that are numbers."""
    return {tensor.data_type for tensor in onnx.load(str(path)).graph.initializer} - {TensorProto.INT64}


def test_fp16_gives_upstreams_scores(fp16: Exported) -> None:
    with Detector.load(fp16.directory, device="cpu") as detector:
        scores = [detector.score(path).score for path in IMAGES]
    differences = np.abs(np.subtract(scores, GOLDEN_SCORES))
    assert 0 < differences.max() <= 2e-3


def test_what_fp16_writes(fp16: Exported) -> None:
    assert types(fp16.directory / "encoder.onnx") == {TensorProto.FLOAT, TensorProto.FLOAT16}
    assert types(fp16.directory / "head.onnx") == {TensorProto.FLOAT}
    manifest = Manifest.load(fp16.directory)
    assert (manifest.precision, manifest.schema) == ("fp16", 1)
    assert not lint(fp16.directory / "encoder.onnx", "10.12")
    gate = manifest.provenance["gate"]
    assert gate["passed"]
    assert gate["engine"].startswith("ONNX Runtime")
    assert (gate["images"], gate["limit"], gate["source"]) == (len(IMAGES), LIMIT, "images")
    assert 0 < gate["score_difference"]["p99"] <= gate["score_difference"]["largest"] <= 2e-3
    assert fp16.deviation is not None
    with Detector.load(fp16.directory, device="cpu") as detector:
        found = [abs(detector.score(path).score - score) for path, score in zip(IMAGES, GOLDEN_SCORES, strict=True)]
    assert fp16.deviation.largest == pytest.approx(max(found), abs=1e-5)


def test_bf16_is_held_in_torch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported = export(tiny_checkpoint, tmp_path / "m", Settings(Precision.BF16))
    assert TensorProto.BFLOAT16 in types(exported.directory / "encoder.onnx")
    gate = exported.manifest.provenance["gate"]
    assert gate["engine"].startswith("torch")
    assert 0 < gate["score_difference"]["largest"] <= 1e-2
    assert gate["source"] == "the examples"
    with pytest.raises(EngineError, match="holds bfloat16, which ONNX Runtime runs on CUDA alone"):
        Detector.load(exported.directory, device="cpu")


def test_bf16_gives_upstreams_scores(tmp_path: Path) -> None:
    deviation = export(CHECKPOINT, tmp_path / "m", Settings(Precision.BF16, images=IMAGES[0].parent)).deviation
    assert deviation is not None
    assert deviation.images == len(IMAGES)
    assert 0 < deviation.largest <= 1e-2


def test_fp32_is_held_against_nothing(tiny_detector: Path) -> None:
    assert "gate" not in Manifest.load(tiny_detector).provenance


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(pixels(90, 70, index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def sharp(tiny_model: SPAI, photographs: Path, tmp_path: Path) -> Path:
    """A checkpoint whose score of a photograph half precision moves: a large multiple of its logit, about 0."""
    model = copy.deepcopy(tiny_model)
    last = model.head.mlp[-1]
    logit = as_detector(model).score(photographs / "0.png").logit
    with torch.no_grad():
        last.bias.copy_(2e4 * (last.bias - logit))
        last.weight *= 2e4
    save_checkpoint(tmp_path / "sharp.safetensors", model, Card(name="sharp"))
    return tmp_path / "sharp.safetensors"


def test_scores_that_differ_too_much_are_refused(
    sharp: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verify, "HALF_TOLERANCE", Differences(1e-3, 10.0, 1e-5)
    )  # a logit of thousands has fewer digits
    settings = Settings(Precision.FP16, images=photographs)
    with pytest.raises(ExportError, match=r"\|Δscore\| from fp32: .*; more than 0\.01 is refused: .* or give --force"):
        export(sharp, tmp_path / "m", settings)
    assert not list((tmp_path / "m").iterdir())
    forced = export(sharp, tmp_path / "m", replace(settings, force=True))
    assert forced.deviation is not None
    gate = Manifest.load(tmp_path / "m").provenance["gate"]
    assert gate["passed"] is False
    assert gate["score_difference"]["largest"] > LIMIT


@pytest.mark.parametrize(
    ("attention", "precision", "trt", "fused"),
    [
        (Attention.AUTO, Precision.FP32, False, False),
        (Attention.AUTO, Precision.FP16, False, True),
        (Attention.AUTO, Precision.BF16, False, True),
        (Attention.AUTO, Precision.FP16, True, False),
        (Attention.AUTO, Precision.INT8, False, False),
        (Attention.PLAIN, Precision.FP16, False, False),
        (Attention.FUSED, Precision.FP32, True, True),
    ],
)
def test_which_attention(attention: Attention, precision: Precision, trt: bool, fused: bool) -> None:
    assert attention.fused(precision, trt=trt) is fused


def test_the_command_fuses_attention(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], run: Run
) -> None:
    arguments = ["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--precision", "fp16"]
    assert main([*arguments, "--calibrate", str(photographs)]) == 0
    out = capfd.readouterr().out
    assert "labels changed, on 6 images of photographs" in out
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "m" / "encoder.onnx")).graph.node]
    assert nodes.count("Attention") == 2
    assert json.loads((tmp_path / "m" / "detector.json").read_text())["provenance"]["opset"] == 23
    ran = run(str(photographs), "--engine", str(tmp_path / "m"), "--device", "cpu", "--format", "csv")
    assert (ran.code, ran.stdout.count("\n")) == (0, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "ModelOpt is not installed|int8 finds its scales on images: give --calibrate"),
        (
            ["--trt", "--device", "cuda:0,1"],
            "a plan is built on one GPU, and cuda:0,1 is not one: give --device cuda:0",
        ),
        (["--trt", "--device", "auto"], "a plan is built on one GPU, and auto is not one"),
        (["--precision", "fp16", "--calibrate", "absent"], "there is no file, folder or match for absent"),
        (["--precision", "fp16", "--calibrate", "."], "no image of .* can be scored; give --calibrate"),
    ],
)
def test_errors(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())
