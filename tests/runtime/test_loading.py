"""Which graphs of a directory run, and on what: the best that loads, or what the user named and nothing else."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spai_runtime.choice import Requested
from spai_runtime.engines import Backend
from spai_runtime.engines.base import Contract, HostEngine
from spai_runtime.errors import EngineError
from spai_runtime.exported import Exported
from spai_runtime.loading import load_engines
from spai_runtime.manifest import FILE_NAME, Accuracy, Artifact, Graph, Manifest, Precision, Spread


@dataclass
class Loaded(HostEngine):
    """An engine that remembers what it was loaded from."""

    path: Path
    device: str
    artifact: Artifact
    closed: bool = False
    batch_size: int = 1

    @property
    def label(self) -> str:
        return f"{self.path.name} on {self.device}"

    def close(self) -> None:
        self.closed = True


Load = Callable[..., list[Loaded]]


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path) -> Path:
    """Graphs, plans and a detector.json that knows them all."""
    folder = tmp_path / "m"
    shutil.copytree(tiny_detector, folder)
    for name in ("model.plan", "head.plan"):
        (folder / name).write_bytes(name.encode())
    add(folder, Artifact("tensorrt", "fp32", Graph.of(folder / "model.plan"), Graph.of(folder / "head.plan")))
    return folder


def add(folder: Path, *artifacts: Artifact) -> None:
    """Writes more artifacts into a detector.json."""
    manifest = Manifest.load(folder)
    (folder / FILE_NAME).write_bytes(replace(manifest, artifacts=(*manifest.artifacts, *artifacts)).dump())


def graphs(folder: Path, precision: Precision, *, passed: bool = True) -> Artifact:
    """One more pair of graphs."""
    name = f"encoder.{precision}.onnx"
    shutil.copy(folder / "encoder.onnx", folder / name)
    accuracy = Accuracy("torch", "a test", 1, 1, "a test", Spread(0.0, 0.0), 0.0, 0, 0.01, passed)
    return Artifact("onnx", precision, Graph.of(folder / name), Graph.of(folder / "head.onnx"), accuracy=accuracy)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads with engines that start unless `refused` names their file or device → those that started, in order."""

    def run(path: Path, device: str, refused: str = "nothing", backend: str | None = None) -> list[Loaded]:
        started: list[Loaded] = []

        def start(row: Backend, path: Path, _: Contract, device: str, artifact: Artifact) -> Loaded:
            assert artifact.kind in row.kinds
            if path.match(refused) or device == refused:
                raise EngineError(f"{path.name} was refused")
            started.append(Loaded(path, device, artifact))
            return started[-1]

        monkeypatch.setattr(Backend, "open", start)
        engines = load_engines(Exported.open(path), Requested(device, backend))
        assert [engine for engine in started if not engine.closed] == [engines.encoder, engines.head]
        assert list(engines.artifact.files) == [engine.path.name for engine in started if not engine.closed]
        return started

    return run


@pytest.mark.parametrize(
    ("named", "device", "encoder", "runs_on"),
    [
        (".", "auto", "model.plan", "cuda:0"),
        (".", "cuda:1", "model.plan", "cuda:1"),
        (".", "cuda:0,1", "model.plan", "cuda:0,1"),
        (".", "cpu", "encoder.onnx", "cpu"),
        ("encoder.onnx", "auto", "encoder.onnx", "cpu"),
        ("head.onnx", "cuda:0", "encoder.onnx", "cuda:0"),
        ("model.plan", "auto", "model.plan", "cuda:0"),
        ("head.plan", "cuda:0", "model.plan", "cuda:0"),
    ],
)
def test_what_runs(directory: Path, load: Load, named: str, device: str, encoder: str, runs_on: str) -> None:
    first, second = load(directory / named, device)
    assert (first.path.name, first.device, second.device) == (encoder, runs_on, runs_on)
    assert second.path.name == encoder.replace("encoder", "head").replace("model", "head")
    assert (first.artifact.kind == "tensorrt") == encoder.endswith(".plan")


@pytest.mark.parametrize("refused", ["model.plan", "head.plan"])
def test_a_directory_falls_back_and_says_so(
    directory: Path, load: Load, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    with caplog.at_level(logging.WARNING, "spai_runtime"):
        started = load(directory, "auto", refused)
    assert [engine.path.name for engine in started][-2:] == ["encoder.onnx", "head.onnx"]
    assert caplog.messages == [f"{refused} was refused; encoder.onnx on cpu runs instead"]


@pytest.mark.parametrize(("refused", "runs_on"), [("nothing", "cuda:0"), ("cuda:0", "cpu")])
def test_auto_is_cuda_where_it_starts(
    directory: Path,
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: str,
    runs_on: str,
) -> None:
    monkeypatch.setattr("spai_runtime.engines.onnx_session.has_cuda", lambda: True)
    assert {engine.device for engine in load(directory / "encoder.onnx", "auto", refused)} == {runs_on}
    said = [] if runs_on == "cuda:0" else ["encoder.onnx was refused; encoder.onnx on cpu runs instead"]
    assert caplog.messages == said


def test_nothing_is_said_where_the_best_runs(directory: Path, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    load(directory, "auto")
    assert not caplog.messages


@pytest.mark.parametrize("named", ["model.plan", "head.plan"])
def test_a_plan_that_was_named_is_never_replaced(directory: Path, load: Load, named: str) -> None:
    with pytest.raises(EngineError, match=r"head\.plan was refused"):
        load(directory / named, "auto", "head.plan")
    with pytest.raises(EngineError, match=rf"{named} runs on a GPU alone: give --device cuda:0, or encoder\.onnx"):
        load(directory / named, "cpu")


def test_what_was_loaded_before_a_refusal_is_closed(
    directory: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Loaded, "close", lambda engine: closed.append(engine.path.name))
    with pytest.raises(EngineError, match=r"head\.onnx was refused"):
        load(directory / "encoder.onnx", "cpu", "head.onnx")
    assert set(closed) == {"encoder.onnx"}


def test_a_plan_is_digested_before_it_is_loaded(directory: Path, load: Load) -> None:
    (directory / "model.plan").write_bytes(b"another")
    with pytest.raises(EngineError, match=r"model\.plan is not the file that detector\.json was written for"):
        load(directory / "model.plan", "cuda:0")


def test_a_plan_needs_no_graphs_beside_it(directory: Path, load: Load) -> None:
    (directory / "encoder.onnx").unlink()
    assert [engine.path.name for engine in load(directory / "model.plan", "auto")] == ["model.plan", "head.plan"]


def test_a_plan_without_its_detector(directory: Path) -> None:
    (directory / FILE_NAME).unlink()
    with pytest.raises(EngineError, match=r"there is no detector\.json in .*; give --engine a directory"):
        Exported.open(directory / "model.plan")


def test_a_plan_that_the_manifest_does_not_know(directory: Path) -> None:
    shutil.copy(directory / "model.plan", directory / "other.plan")
    with pytest.raises(EngineError, match=r"other\.plan is not a graph of"):
        Exported.open(directory / "other.plan")


@pytest.mark.parametrize(
    ("cuda", "encoder"),
    [(False, "encoder.onnx"), (True, "encoder.fp16.onnx")],
)
def test_auto_takes_the_precision_that_suits_the_back_end(
    tiny_detector: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, cuda: bool, encoder: str
) -> None:
    """On a CPU, ONNX Runtime is fastest in fp32; on CUDA in half."""
    monkeypatch.setattr("spai_runtime.engines.onnx_session.has_cuda", lambda: cuda)
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    add(folder, graphs(folder, "int8"), graphs(folder, "fp16"))
    assert load(folder, "auto")[0].path.name == encoder


def test_a_file_that_was_named_runs_whatever_else_there_is(tiny_detector: Path, tmp_path: Path, load: Load) -> None:
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    add(folder, graphs(folder, "int8"), graphs(folder, "fp16", passed=False))
    for name in ("encoder.onnx", "encoder.int8.onnx", "encoder.fp16.onnx"):
        assert load(folder / name, "cpu")[0].path.name == name
    assert load(folder / "head.onnx", "cpu")[0].path.name == "encoder.onnx"  # which all have


def test_what_did_not_pass_its_accuracy_check_is_the_last_resort(
    tiny_detector: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spai_runtime.engines.onnx_session.has_cuda", lambda: True)
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    add(folder, graphs(folder, "fp16", passed=False), graphs(folder, "bf16"))
    assert load(folder, "cuda:0")[0].path.name == "encoder.bf16.onnx"
    manifest = Manifest.load(folder)
    (folder / FILE_NAME).write_bytes(replace(manifest, artifacts=manifest.artifacts[1:2]).dump())
    assert load(folder, "cuda:0")[0].path.name == "encoder.fp16.onnx"  # as it was forced, and nothing else is there


def test_a_back_end_that_was_named_runs_and_no_other(directory: Path, load: Load) -> None:
    assert load(directory, "auto", backend="onnxruntime")[0].path.name == "encoder.onnx"
    assert load(directory, "auto", backend="tensorrt")[0].path.name == "model.plan"
    with pytest.raises(EngineError, match=r"model\.plan was refused"):
        load(directory, "auto", "model.plan", backend="tensorrt")
    with pytest.raises(EngineError, match=r"has nothing for the back end tensorrt on cpu; it has onnx fp32, tensorrt"):
        load(directory, "cpu", backend="tensorrt")
    with pytest.raises(
        EngineError, match="no back end tvm; --backend takes one of tensorrt, tensorrt-rtx, onnxruntime, openvino"
    ):
        load(directory, "auto", backend="tvm")


def test_a_directory_of_schema_2_with_a_plan(directory: Path, load: Load) -> None:
    """As it was written before artifacts were a list."""
    fields = json.loads((directory / FILE_NAME).read_bytes())
    onnx, plan = (artifact | {"target": None} for artifact in fields.pop("artifacts"))
    gate = {"against": "torch", "engine": "e", "images": 1, "views": 1, "source": "s", "logit_difference": 0.0}
    gate |= {"score_difference": {"largest": 0.0, "p99": 0.0}, "labels_changed": 0, "limit": 0.01, "passed": True}
    target = {"tensorrt": "11.4.0", "gpu": "A GPU", "compute_capability": "9.0", "batch_size": 64}
    both = {name: plan[name] for name in ("encoder", "head")}
    old = {**fields, "schema": 2, "precision": "fp16", **{name: onnx[name] for name in ("encoder", "head")}}
    old |= {"plan": {**both, **target, "version_compatible": True, "options": {"tf32": False, "gate": gate}}}
    (directory / FILE_NAME).write_text(json.dumps(old))
    first, _ = load(directory, "auto")
    assert (first.path.name, first.artifact.precision, first.artifact.passed) == ("model.plan", "fp16", True)
    assert first.artifact.target == {**target, "version_compatible": True}
    assert first.artifact.accuracy is not None
    assert load(directory, "cpu")[0].artifact.accuracy is None
