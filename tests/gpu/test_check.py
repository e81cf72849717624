"""`spai-run --check`, and what is said of plans that no GPU has scored, with a fake TensorRT for RTX."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from PIL import Image

from spai_runtime import checks
from spai_runtime.detector import Detector
from spai_runtime.engines.tensorrt_target import RtxTarget
from spai_runtime.manifest import FILE_NAME, TENSORRT_RTX, Artifact, Graph, Manifest
from tests.gpu.fakes import fake_cupy, fake_tensorrt_rtx
from tests.gpu.fakes.fake_tensorrt_plans import Header, write_plan
from tests.gpu.fakes.fake_tensorrt_rtx import FakeRtx
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.models import TINY

SIZE, FEATURES = TINY.tile_size, TINY.features
PROFILES = {
    "encoder": {"views": [[count, SIZE, SIZE, 3] for count in (1, 6, 6)]},
    "head": {"features": [[1, count, FEATURES] for count in (1, 16, 64)]},
}


@pytest.fixture(autouse=True)
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRtx:
    """A GeForce RTX 4090 with TensorRT for RTX, and nothing else that runs on it."""
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    machine = fake_cupy.install(monkeypatch, capability=(8, 9), name="NVIDIA GeForce RTX 4090")
    return fake_tensorrt_rtx.install(monkeypatch, machine)


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path, rtx: FakeRtx) -> Path:
    """Graphs in fp32, and plans of them that no GPU has scored."""
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    for name, profile in PROFILES.items():
        header = Header(rtx.version, (0, 0), profiles=[profile])
        graph = onnx.load(folder / f"{name}.onnx").SerializeToString()
        (folder / f"{name}.plan").write_bytes(write_plan(header, graph))
    target = msgspec.to_builtins(RtxTarget(rtx.version, ("8.9",), 6))
    files = Graph.of(folder / "encoder.plan"), Graph.of(folder / "head.plan")
    plan = Artifact(TENSORRT_RTX, "fp32", *files, target=target, unscored="not scored on a GPU yet")
    manifest = Manifest.load(folder)
    (folder / FILE_NAME).write_bytes(replace(manifest, artifacts=(*manifest.artifacts, plan)).dump())
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, (height, width) in enumerate([(70, 90), (33, 40), (64, 64)]):
        Image.fromarray(pixels(height, width, index)).save(folder / f"{index}.png")
    return folder


def took(directory: Path) -> str:
    """The kind of artifact that `auto` takes."""
    with Detector.load(directory) as detector:
        assert detector.artifact is not None
        return detector.artifact.kind


def test_a_plan_that_was_not_scored_runs_and_says_so(directory: Path, photographs: Path, run: Run) -> None:
    ran = run(photographs, "--engine", directory)
    assert ran.code == 0
    taken, unscored = ran.stderr.splitlines()
    assert taken == (
        f"spai-run: auto takes {directory / 'encoder.plan'}, native code of whoever exported it; "
        "--backend onnxruntime takes a graph"
    )
    assert unscored == (
        f"spai-run: encoder.plan was not scored on a GPU yet: `spai-run --check --engine {directory}` does that, once"
    )
    named = run(photographs, "--engine", directory / "encoder.plan")
    assert named.stdout == ran.stdout
    assert named.stderr.splitlines() == [unscored.replace(str(directory), str(directory / "encoder.plan"))]
    graphs = run(photographs, "--engine", directory, "--backend", "onnxruntime")
    assert graphs.stderr == ""


def test_a_check_that_passes_is_kept(directory: Path, photographs: Path, run: Run) -> None:
    ran = run("--check", photographs, "--engine", directory / "encoder.plan")
    assert (ran.code, ran.stderr) == (0, "")
    label = "TensorRT for RTX 1.7.1.116 on NVIDIA GeForce RTX 4090, CUDA 13.0, cuda:0"
    assert ran.stdout.startswith(f"{directory / 'encoder.plan'}: fp32 in {label}: |Δscore| from encoder.onnx in ")
    assert ran.stdout.endswith("0 labels changed, on 3 images of the INPUT; which is within 0.01\n")
    after = run(photographs, "--engine", directory / "encoder.plan")
    assert (after.code, after.stderr) == (0, "")
    with Detector.load(directory) as detector:
        assert detector.artifact is not None
        found = checks.found(detector.artifact, detector.encoder.label)
    assert found is not None
    assert (found.images, found.passed, found.engine) == (3, True, label)
    assert 0 <= found.score_difference.largest < 1e-5


def test_a_check_belongs_to_one_gpu(directory: Path, photographs: Path, run: Run, rtx: FakeRtx) -> None:
    run("--check", photographs, "--engine", directory)
    rtx.machine.gpus[0].name = "NVIDIA GeForce RTX 3060"
    assert "was not scored on a GPU yet" in run(photographs, "--engine", directory).stderr


def test_a_check_that_fails_turns_auto_away(
    directory: Path, photographs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert took(directory) == TENSORRT_RTX
    monkeypatch.setattr("spai_runtime.accuracy.LIMIT", -1.0)
    ran = run("--check", photographs, "--engine", directory)
    assert ran.code == 3
    assert "which is NOT within -1" in ran.stdout
    assert took(directory) == "onnx"
    by_auto = run(photographs, "--engine", directory)
    assert by_auto.code == 0
    assert by_auto.stderr.startswith(
        "spai-run: encoder.plan gives other scores than its graph here, as `spai-run --check` found; "
    )
    named = run(photographs, "--engine", directory / "encoder.plan")
    assert named.code == 0
    assert named.stderr.startswith("spai-run: encoder.plan gives other scores than its graph here: |Δscore| from")


def test_the_example_images_are_there_for_it(run: Run) -> None:
    """Of the demo detector, which they come with: on the CPU, against itself."""
    demo = Path(__file__).parents[2] / "weights" / "demo"
    ran = run("--check", "--engine", demo, "--device", "cpu")
    assert ran.code == 0
    assert "at most 0.0e+00" in ran.stdout
    assert "images of the examples" in ran.stdout


def test_a_record_that_cannot_be_read_is_none(directory: Path, photographs: Path, run: Run, tmp_path: Path) -> None:
    run("--check", photographs, "--engine", directory)
    (record,) = (tmp_path / "cache" / "checks").iterdir()
    record.write_bytes(b"\xff{")
    assert "was not scored on a GPU yet" in run(photographs, "--engine", directory).stderr


def test_a_terminal_is_told_what_it_waits_for(
    directory: Path, photographs: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "compiling" not in run(photographs, "--engine", directory).stderr
    shutil.rmtree(tmp_path / "cache" / "tensorrt-rtx")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines = run(photographs, "--engine", directory, "--quiet").stderr.splitlines()
    plan = directory / "encoder.plan"
    assert f"spai-run: compiling {plan} for NVIDIA GeForce RTX 4090, once" in lines
    assert any(re.fullmatch(rf"spai-run: compiled {re.escape(str(plan))} in \d+ s", line) for line in lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--check compares an exported detector with its graphs: name it with --engine"),
        (["--engine", "{m}", "--output", "x.csv"], "--check writes no rows and runs plans: leave --output"),
        (["--engine", "{m}", "--untrusted-engine"], "--check writes no rows and runs plans: leave --output"),
    ],
)
def test_usage(directory: Path, run: Run, options: list[Any], said: str) -> None:
    ran = run("--check", *(str(option).format(m=directory) for option in options))
    assert ran.code == 2
    assert said in ran.stderr


def test_a_directory_without_graphs_has_nothing_to_compare_with(directory: Path, photographs: Path, run: Run) -> None:
    manifest = Manifest.load(directory)
    (directory / FILE_NAME).write_bytes(replace(manifest, artifacts=manifest.artifacts[1:]).dump())
    ran = run("--check", photographs, "--engine", directory)
    assert ran.code == 2
    assert "has no ONNX graphs that its scores could be compared with: export it again" in ran.stderr
