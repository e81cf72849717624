"""`spai-export --trt`, then `spai-run --engine model.plan`, as strict fakes of CuPy and TensorRT see them."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from spai_export.cli import main
from spai_export.gate import Deviation, Gate
from spai_runtime.detector import Detector
from spai_runtime.manifest import Manifest
from tests.gpu.fakes import fake_cupy, fake_tensorrt
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT
from tests.support.commands import Run
from tests.support.images import pixels


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeTensorRT:
    return fake_tensorrt.install(monkeypatch, machine)


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


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.fixture
def plan(tensorrt: FakeTensorRT, tiny_checkpoint: Path, photographs: Path, tmp_path: Path) -> Path:
    """Of fp16, for batches of 6 views."""
    assert not tensorrt.builds
    options = ["--precision", "fp16", "--trt", "--batch-size", "6", "--calibrate", str(photographs)]
    assert export(tiny_checkpoint, tmp_path / "m", *options) == 0
    return tmp_path / "m" / "model.plan"


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
    tensorrt: FakeTensorRT,
    tiny_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tensorrt.layers = []
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--calibrate", str(photographs), "--device", "cuda:1") == 0
    out = capsys.readouterr().out
    for name in ("encoder.onnx", "head.onnx", "detector.json", "model.plan", "head.plan"):
        assert f"{tmp_path / 'm' / name}  " in out
    assert out.count("on 7 images of photographs") == 1
    manifest = Manifest.load(tmp_path / "m")
    assert manifest.plan is not None
    assert (manifest.plan.tensorrt, manifest.plan.compute_capability) == ("11.4.0.106", "9.0")
    assert (manifest.plan.batch_size, manifest.plan.options["tf32"]) == (32, False)
    assert manifest.plan.options["gate"]["engine"] == "TensorRT 11.4.0.106, cuda:1"
    assert manifest.plan.options["gate"]["passed"]


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
    assert export(tiny_checkpoint, tmp_path / "m", "--trt") == 2
    captured = capsys.readouterr()
    said = "TensorRT is not installed: pip install" if without == "TensorRT" else "no GPU can be used"
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["detector.json", "encoder.onnx", "head.onnx"]
    assert Manifest.load(tmp_path / "m").plan is None


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_is_not_entered_before_it_was_held_against_fp32(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whatever ends the export meanwhile leaves no plan that nobody admitted."""
    hold, entered = Gate.hold, []

    def held(gate: Gate, detector: Detector) -> Deviation:
        entered.append(Manifest.load(tmp_path / "m").plan)
        return hold(gate, detector)

    monkeypatch.setattr(Gate, "hold", held)
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--calibrate", str(photographs)) == 0
    assert entered == [None]
    assert Manifest.load(tmp_path / "m").plan is not None


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_whose_scores_are_wrong_is_not_entered(
    tiny_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("spai_export.gate.LIMIT", -1.0)
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--calibrate", str(photographs)) == 2
    assert "is refused: choose another precision, or give --force" in capsys.readouterr().err
    assert Manifest.load(tmp_path / "m").plan is None
    assert export(tiny_checkpoint, tmp_path / "m", "--trt", "--calibrate", str(photographs), "--force") == 0
    plan = Manifest.load(tmp_path / "m").plan
    assert plan is not None
    assert plan.options["gate"]["passed"] is False


def test_a_plan_of_another_gpu_or_version(
    plan: Path, machine: Machine, photographs: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    machine.gpus[0].capability = (8, 9)
    ran = run(photographs, "--engine", plan)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "run spai-export --trt on this machine" in ran.stderr
    ran = run(photographs, "--engine", plan.parent)
    assert ran.code == 3
    assert "run spai-export --trt on this machine; ONNX Runtime" in ran.stderr
    assert "cpu runs instead" in ran.stderr
    fake_tensorrt.install(monkeypatch, machine, "11.5.0.1")
    ran = run(photographs, "--engine", plan, "--device", "cuda:1")
    assert (ran.code, ran.stdout) == (2, "")
    assert "was built by TensorRT 11.4.0.106, and 11.5.0.1 is installed" in ran.stderr


def test_a_plan_that_was_changed(plan: Path, photographs: Path, run: Run) -> None:
    plan.write_bytes(plan.read_bytes() + b"\0")
    ran = run(photographs, "--engine", plan)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
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
