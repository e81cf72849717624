"""`spai-export --precision`: what is written, what is compared with fp32, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from PIL import Image

from spai_export import directory, verify
from spai_export.choices import Attention, Precision, Settings
from spai_export.cli import main
from spai_export.directory import ExportReport, export
from spai_export.onnx import ExportError
from spai_export.tensorrt.lint import lint
from spai_export.tensorrt.lint.operators import TABLE
from spai_export.verify import Differences
from spai_runtime.accuracy import LIMIT
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError, UserError
from spai_runtime.manifest import Accuracy, Manifest
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.detectors.spai.model import SPAI
from tests.golden import CHECKPOINT, IMAGES, expected
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.models import TINY, sharpened

GOLDEN_SCORES = [float(1 / (1 + np.exp(-expected(f"{index}/logit").item()))) for index in range(len(IMAGES))]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """fp16, which has the plain names, and bf16."""
    settings = Settings((Precision.FP16, Precision.BF16), Attention.PLAIN, images=IMAGES[0].parent)
    return export(CHECKPOINT, tmp_path_factory.mktemp("half") / "m", settings)


def lower(precision: Precision, **settings: Any) -> Settings:
    """One precision alone, its attention as products."""
    return Settings((precision,), Attention.PLAIN, **settings)


def accuracy(report: ExportReport, precision: Precision) -> Accuracy:
    """As detector.json says it."""
    (found,) = [one.accuracy for one in Manifest.load(report.directory).artifacts if one.precision == precision]
    assert found is not None
    return found


def types(path: Path) -> set[int]:
    """Of the initializers that are numbers."""
    return {tensor.data_type for tensor in onnx.load(str(path)).graph.initializer} - {TensorProto.INT64}


def test_fp16_gives_upstreams_scores(half: ExportReport) -> None:
    with Detector.load(half.directory, device="cpu") as detector:
        scores = [detector.score(path).score for path in IMAGES]
    differences = np.abs(np.subtract(scores, GOLDEN_SCORES))
    assert 0 < differences.max() <= 2e-3


def test_what_fp16_writes(half: ExportReport) -> None:
    assert types(half.directory / "encoder.onnx") == {TensorProto.FLOAT, TensorProto.FLOAT16}
    assert types(half.directory / "head.onnx") == {TensorProto.FLOAT}
    manifest = Manifest.load(half.directory)
    assert [artifact.precision for artifact in manifest.artifacts] == ["fp16", "bf16"]
    assert not lint(half.directory / "encoder.onnx", "10.12")
    found_then = accuracy(half, Precision.FP16)
    assert found_then.passed
    assert found_then.engine.startswith("ONNX Runtime")
    assert (found_then.images, found_then.limit, found_then.source) == (len(IMAGES), LIMIT, "images")
    assert 0 < found_then.score_difference.p99 <= found_then.score_difference.largest <= 2e-3
    with Detector.load(half.directory, device="cpu", backend="onnxruntime") as detector:
        found = [abs(detector.score(path).score - score) for path, score in zip(IMAGES, GOLDEN_SCORES, strict=True)]
    assert found_then.score_difference.largest == pytest.approx(max(found), abs=1e-5)


def test_bf16_gives_upstreams_scores_in_torch(half: ExportReport) -> None:
    assert TensorProto.BFLOAT16 in types(half.directory / "encoder.bf16.onnx")
    found = accuracy(half, Precision.BF16)
    assert found.engine.startswith("torch")
    assert (found.images, found.source) == (len(IMAGES), "images")
    assert 0 < found.score_difference.largest <= 1e-2


def test_it_is_said_where_bf16_runs(half: ExportReport) -> None:
    (line,) = [line for line in half.sentences if "a graph in bf16 runs on NVIDIA GPUs" in line]
    assert line.startswith("bf16: ")


def test_bf16_alone_is_not_for_cpus(half: ExportReport) -> None:
    for named in (half.directory / "encoder.bf16.onnx", half.directory):
        with pytest.raises(EngineError, match="holds bfloat16, which ONNX Runtime runs on CUDA alone"):
            Detector.load(named, device="cpu", precision="bf16")


def test_fp32_is_compared_with_nothing(tiny_detector: Path) -> None:
    assert [artifact.accuracy for artifact in Manifest.load(tiny_detector).artifacts] == [None]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(pixels(90, 70, index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def sharp(tiny_model: SPAI, photographs: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sharp.safetensors"
    save_checkpoint(path, sharpened(tiny_model, photographs / "0.png"), Card(name="sharp"))
    return path


def test_scores_that_differ_too_much_are_refused(
    sharp: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verify, "HALF_TOLERANCE", Differences(1e-3, 10.0, 1e-5)
    )  # a logit of thousands has fewer digits
    settings = lower(Precision.FP16, images=photographs)
    with pytest.raises(ExportError, match=r"\|Δscore\| from fp32: .*; more than 0\.01 is refused: .* or give --force"):
        export(sharp, tmp_path / "m", settings)
    assert not (tmp_path / "m").exists()
    found = accuracy(export(sharp, tmp_path / "m", replace(settings, force=True)), Precision.FP16)
    assert found.passed is False
    assert found.score_difference.largest > LIMIT


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


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A checkpoint whose heads are wide enough for TensorRT's attention."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(tmp_path / "wide.safetensors", SPAI(replace(TINY, heads=1)), Card(name="wide"))
    return tmp_path / "wide.safetensors"


def test_the_command_fuses_attention(
    wide: Path, photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], run: Run
) -> None:
    arguments = ["--ckpt", str(wide), "--output", str(tmp_path / "m"), "--precision", "fp16"]
    assert main([*arguments, "--images", str(photographs)]) == 0
    out = capfd.readouterr().out
    assert "labels changed, on 6 images of photographs" in out
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "m" / "encoder.onnx")).graph.node]
    assert nodes.count("Attention") == 2
    assert json.loads((tmp_path / "m" / "detector.json").read_text())["artifacts"][0]["options"]["opset"] == 23
    ran = run(str(photographs), "--engine", str(tmp_path / "m"), "--device", "cpu", "--format", "csv")
    assert (ran.code, ran.stdout.count("\n")) == (0, 7)


def test_what_tensorrt_is_known_to_refuse_is_not_written(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--attention", "fused"]
    assert main(arguments) == 2
    assert re.search(
        r"input 0 is float32, .*; export with --attention plain \(and \d+ more\)\n$", capsys.readouterr().err
    )
    assert not (tmp_path / "m").exists()


def test_what_was_not_tried_with_tensorrt_is_told(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And written all the same."""
    for operator in ("Softmax", "Sqrt"):
        monkeypatch.delitem(TABLE, operator)  # type: ignore[arg-type]
    assert main(["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m")]) == 0
    told = "encoder.onnx holds what was not tried with TensorRT, and may not build there: Softmax, Sqrt"
    assert told in capsys.readouterr().out.splitlines()
    assert Manifest.load(tmp_path / "m").artifacts


IMAGES_MISSING = {
    "absent": "there is no file, folder or match for .*absent",
    "empty": "no image of empty can be scored: give a folder",
}


@pytest.mark.parametrize("images", IMAGES_MISSING)
@pytest.mark.parametrize("command", [True, False])
def test_images_are_looked_for_before_anything_is_exported(
    command: bool,
    images: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export_nothing(*_: object) -> None:
        raise AssertionError("a graph is exported")

    monkeypatch.setattr(directory, "export_shared_head", export_nothing)
    (tmp_path / "empty").mkdir()
    if command:
        arguments = [
            "--ckpt",
            str(tiny_checkpoint),
            "--output",
            str(tmp_path / "m"),
            "--images",
            str(tmp_path / images),
        ]
        assert main([*arguments, "--precision", "fp16"]) == 2
        assert re.search(IMAGES_MISSING[images], capsys.readouterr().err)
        return
    with pytest.raises(UserError, match=IMAGES_MISSING[images]):
        export(tiny_checkpoint, tmp_path / "m", lower(Precision.FP16, images=tmp_path / images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "int8 finds its scales on images: give --images a folder of 500"),
        (["--precision", "fp16", "--precision", "fp8"], "fp8 finds its scales on images: give --images a folder"),
        (
            ["--precision", "fp16", "--precision", "fp32", "--precision", "fp16"],
            "--precision fp16 is given twice: once",
        ),
        (
            ["--precision", "int8", "--images", ".", "--attention", "fused"],
            "int8 needs its attention plain: leave --attention out",
        ),
        (["--detector", "nothing"], "there is no detector nothing; known are: spai"),
        (
            ["--trt", "--device", "cuda:0,1"],
            "a plan is built on one GPU, and cuda:0,1 is not one: give --device cuda:0",
        ),
        (["--trt", "--device", "auto"], "a plan is built on one GPU, and auto is not one"),
        (
            ["--precision", "fp16", "--attention", "plain", "--images", "absent"],
            "there is no file, folder or match for absent",
        ),
        (
            ["--precision", "fp16", "--attention", "plain", "--images", "."],
            "no image of .* can be scored: give a folder of photographs",
        ),
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
    assert not (tmp_path / "m").exists()
