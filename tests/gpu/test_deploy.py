"""`spai-export --trt`, then `spai-run --engine model.plan`, as strict fakes of CuPy and TensorRT see them."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from spai_export import verify
from spai_export.cli import main
from spai_runtime.accuracy_check import AccuracyCheck
from spai_runtime.cli.commands import EXIT_REFUSED
from spai_runtime.detector import Detector
from spai_runtime.manifest import Accuracy, Artifact, Manifest
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.detectors.spai.model import SPAI
from tests.gpu.fakes import fake_cupy, fake_tensorrt, plan_writer
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.plan_writer import Written
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.models import sharpened


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Written:
    return plan_writer.install(monkeypatch, machine)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles, five crops, slivers that are padded, and one file that is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, (height, width) in enumerate([(70, 90), (33, 40), (20, 300), (200, 200), (1, 1), (64, 64), (100, 35)]):
        Image.fromarray(pixels(height, width, index)).save(folder / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def export(checkpoint: Path, output: Path, *options: str) -> int:
    return main(["--ckpt", str(checkpoint), "--output", str(output), *options])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def plans(directory: Path) -> list[Artifact]:
    """Those that detector.json names."""
    return [artifact for artifact in Manifest.load(directory).artifacts if artifact.kind == "tensorrt"]


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a plan of fp16, for batches of 6 views; do not write into it."""
    directory = tmp_path_factory.mktemp("exported") / "m"
    options = ["--precision", "fp16", "--trt", "--batch-size", "6", "--images", str(photographs)]
    with pytest.MonkeyPatch.context() as patch:
        plan_writer.install(patch, fake_cupy.install(patch))
        assert export(tiny_checkpoint, directory, *options) == 0
    return directory


@pytest.fixture
def plan(tensorrt: Written, exported: Path, tmp_path: Path) -> Path:
    """A copy of that plan, on a machine with two GPUs and TensorRT."""
    assert not tensorrt.headers
    return Path(shutil.copytree(exported, tmp_path / "m")) / "model.plan"


def test_a_plan_scores_what_torch_does(
    plan: Path, machine: Machine, tiny_detector: Path, photographs: Path, tmp_path: Path, run: Run
) -> None:
    for device, output in (("auto", "one.csv"), ("cuda:1,0", "two.csv")):
        ran = run(photographs, "--engine", plan, "--device", device, "--output", tmp_path / output)
        assert (ran.code, ran.stderr.count("\n")) == (3, 1), ran.stderr
    found, both = rows(tmp_path / "one.csv"), rows(tmp_path / "two.csv")
    assert found == both
    assert list(found) == [path.name for path in sorted(photographs.iterdir())]
    with Detector.load(tiny_detector, device="cpu") as detector:
        for name, row in found.items():
            if name == "broken.jpg":
                assert "not an image" in row["error"]
                continue
            expected = detector.score(photographs / name)
            assert float(row["score"]) == pytest.approx(expected.score, abs=2e-3)
            assert int(row["views"]) == len(expected.layout)
    record = json.loads((tmp_path / "one.csv.run.json").read_text())
    assert (record["device"], record["engine"]) == ("cuda:0", "TensorRT 11.4.0.106, cuda:0")
    machine.check()


def test_what_the_export_says(
    tensorrt: Written,
    tiny_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tensorrt.layers = []
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--images", str(photographs), "--device", "cuda:1") == 0
    out = capsys.readouterr().out
    for name in ("encoder.onnx", "head.onnx", "detector.json", "model.plan", "head.plan"):
        assert f"{tmp_path / 'm' / name}  " in out
    assert out.count("on 7 images of photographs") == 1
    (plan,) = plans(tmp_path / "m")
    assert (plan.target["tensorrt"], plan.target["compute_capability"]) == ("11.4.0.106", "9.0")
    assert (plan.target["batch_size"], plan.options["tf32"]) == (32, False)
    assert plan.accuracy is not None
    assert plan.accuracy.engine == "TensorRT 11.4.0.106, cuda:1"
    assert plan.accuracy.passed


@pytest.mark.parametrize("without", ["TensorRT", "GPU"])
def test_without_what_a_plan_needs_the_graphs_are_written(
    without: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if without == "GPU":
        fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch, gpus=0))
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--trt-for", "gpu") == 2
    captured = capsys.readouterr()
    said = "TensorRT is not installed: pip install" if without == "TensorRT" else "no GPU can be used"
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "detector.json",
        "encoder.onnx",
        "head.onnx",
    ]
    assert plans(tmp_path / "m") == []


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_does_not_appear_before_it_was_compared_with_fp32(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whatever ends the export meanwhile leaves no plan that nobody checked."""
    compare, before = AccuracyCheck.compare, []

    def compared(check: AccuracyCheck, detector: Detector) -> Accuracy:
        before.append((plans(tmp_path / "m"), list((tmp_path / "m").glob("*.plan"))))
        return compare(check, detector)

    monkeypatch.setattr(AccuracyCheck, "compare", compared)
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--images", str(photographs)) == 0
    assert before == [([], [])]
    assert len(plans(tmp_path / "m")) == 1


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_whose_scores_are_wrong_is_not_entered(
    tiny_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("spai_runtime.accuracy.LIMIT", -1.0)
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--images", str(photographs)) == 2
    assert "is refused: choose another precision, or give --force" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "detector.json",
        "encoder.onnx",
        "head.onnx",
    ]
    assert plans(tmp_path / "m") == []
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--images", str(photographs), "--force") == 0
    (plan,) = plans(tmp_path / "m")
    assert plan.accuracy is not None
    assert plan.accuracy.passed is False


def several(checkpoint: Path, output: Path, photographs: Path) -> list[Artifact]:
    """Graphs and plans in fp32 and fp16, whatever their scores."""
    precisions = ["--precision", "fp32", "--precision", "fp16", "--force"]
    assert export(checkpoint, output, *precisions, "--trt", "--images", str(photographs)) == 0
    return plans(output)


def took(engine: Path) -> tuple[str, str]:
    """Precision and back end that `auto` takes."""
    with Detector.load(engine) as detector:
        assert detector.artifact is not None
        return detector.artifact.precision, detector.encoder.label.split()[0]


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_of_each_precision(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = several(tiny_checkpoint, tmp_path / "m", photographs)
    assert [(plan.precision, *plan.files) for plan in made] == [
        ("fp32", "model.plan", "head.plan"),
        ("fp16", "model.fp16.plan", "head.plan"),
    ]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "detector.json",
        "encoder.fp16.onnx",
        "encoder.onnx",
        "head.onnx",
        "head.plan",
        "model.fp16.layers.json",
        "model.fp16.plan",
        "model.layers.json",
        "model.plan",
    ]
    for plan, graph in zip(made, ("encoder.onnx", "encoder.fp16.onnx"), strict=True):
        assert plan.options["onnx_sha256"] == {name: sha256(tmp_path / "m" / name) for name in (graph, "head.onnx")}
        assert plan.passed
    largest = [plan.accuracy.score_difference.largest for plan in made if plan.accuracy]
    assert 0 <= largest[0] < largest[1] < 2e-3
    out = capsys.readouterr().out
    assert "\nfp16: 2 of 2 attentions are fused\n" in out
    assert re.search(r"\nfp32: \|Δscore\| from fp32: .*\nfp16: \|Δscore\| .*; done in \d+ s\n$", out)
    assert took(tmp_path / "m") == ("fp16", "TensorRT")
    assert took(tmp_path / "m" / "model.plan") == ("fp32", "TensorRT")
    assert took(tmp_path / "m" / "model.fp16.plan") == ("fp16", "TensorRT")


@pytest.mark.usefixtures("tensorrt")
def test_auto_passes_over_a_plan_whose_scores_are_not_those_of_fp32(
    tiny_model: SPAI, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOLERANCE", "HALF_TOLERANCE"):  # a logit of thousands has fewer digits
        monkeypatch.setattr(verify, name, verify.Differences(1e-3, 10.0, 1e-5))
    model = sharpened(tiny_model, photographs / "0.png")
    save_checkpoint(tmp_path / "sharp.safetensors", model, Card(name="sharp"))
    one, other = several(tmp_path / "sharp.safetensors", tmp_path / "m", photographs)
    assert (one.passed, other.passed) == (True, False)
    assert took(tmp_path / "m") == ("fp32", "TensorRT")
    assert took(tmp_path / "m" / "model.fp16.plan") == ("fp16", "TensorRT")


def test_a_plan_of_another_gpu_or_version(
    plan: Path, machine: Machine, photographs: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    machine.gpus[0].capability = (8, 9)
    ran = run(photographs, "--engine", plan)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "run spai-export --trt on this machine" in ran.stderr
    ran = run(photographs, "--engine", plan.parent)
    assert ran.code == 3
    assert "run spai-export --trt on this machine; " in ran.stderr
    assert "cpu runs instead" in ran.stderr
    fake_tensorrt.install(monkeypatch, machine, "11.5.0.1")
    ran = run(photographs, "--engine", plan, "--device", "cuda:1")
    assert (ran.code, ran.stdout) == (2, "")
    assert "was built by TensorRT 11.4.0.106, and 11.5.0.1 is installed" in ran.stderr


def test_a_plan_that_was_changed(plan: Path, photographs: Path, run: Run) -> None:
    plan.write_bytes(plan.read_bytes() + b"\0")
    ran = run(photographs, "--engine", plan)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (EXIT_REFUSED, "", 1)
    assert "is not the file that detector.json was written for (sha256 differs)" in ran.stderr


def test_a_gpu_that_vanishes_hands_over(
    plan: Path, machine: Machine, photographs: Path, tmp_path: Path, run: Run
) -> None:
    complete, interrupted = tmp_path / "complete.csv", tmp_path / "lost.csv"
    assert run(photographs, "--engine", plan, "--device", "cuda:0", "--output", complete).code == 3
    machine.lose(1, after=3)
    ran = run(photographs, "--engine", plan, "--device", "cuda:0,1", "--output", interrupted)
    assert ran.code == 3
    assert "cuda:1 stopped working" in ran.stderr
    assert "its images go to cuda:0" in ran.stderr
    assert complete.read_bytes() == interrupted.read_bytes()


def test_the_last_gpu_vanishes_and_the_run_goes_on_later(
    plan: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for index in range(60):
        shutil.copy(photographs / f"{index % 7}.png", many / f"{index:02d}.png")
    machine = fake_cupy.install(monkeypatch)
    fake_tensorrt.install(monkeypatch, machine)
    machine.lose(0, after=25)
    ran = run(many, "--engine", plan, "--output", tmp_path / "out.csv", "--workers", "1")
    assert ran.code == 2
    assert "cuda:0 stopped working" in ran.stderr
    partial = rows(tmp_path / "out.csv.partial")
    scored = [name for name, row in partial.items() if row["score"]]
    assert 0 < len(scored) < len(partial) < 60
    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch))
    ran = run(many, "--engine", plan, "--output", tmp_path / "out.csv", "--resume")
    assert ran.code == 3
    finished = rows(tmp_path / "out.csv")
    assert len(finished) == 60
    assert {name: finished[name] for name in partial} == partial
    assert all("stopped working" in finished[name]["error"] for name in partial if name not in scored)


@pytest.mark.parametrize("after", [7, 10, 13])
def test_too_little_memory_makes_batches_smaller(
    plan: Path, machine: Machine, photographs: Path, tmp_path: Path, run: Run, after: int
) -> None:
    machine.fail_allocation(after=after, times=2)  # an engine frees what lies unused, and tries once more by itself
    ran = run(photographs, "--engine", plan, "--output", tmp_path / "out.csv")
    assert ran.code == 3
    assert "spai-run: cuda:0 is out of memory; going on with batches of 4 views\n" in ran.stderr
    assert [name for name, row in rows(tmp_path / "out.csv").items() if not row["score"]] == ["broken.jpg"]
