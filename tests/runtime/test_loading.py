"""Which graphs of a directory run, and on what: the best that loads, or what the user named and nothing else."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spai_runtime import loading
from spai_runtime.engines import Contract, HostEngine
from spai_runtime.errors import EngineError
from spai_runtime.loading import Exported, load_engines
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Plan


@dataclass
class Loaded(HostEngine):
    """An engine that remembers what it was loaded from."""

    path: Path
    device: str
    plan: Plan | None
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
    plan = Plan(Graph.of(folder / "model.plan"), Graph.of(folder / "head.plan"), "11.4.0", "A GPU", "9.0", 64)
    (folder / FILE_NAME).write_bytes(replace(Manifest.load(folder), plan=plan).dump())
    return folder


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads with engines that start unless `refused` names their file or device → those that started, in order."""

    def run(path: Path, device: str, refused: str = "nothing") -> list[Loaded]:
        started: list[Loaded] = []

        def start(path: Path, _: Contract, device: str, plan: Plan | None = None) -> Loaded:
            if path.match(refused) or device == refused:
                raise EngineError(f"{path.name} was refused")
            started.append(Loaded(path, device, plan))
            return started[-1]

        monkeypatch.setattr(loading, "load_engine", start)
        engines = load_engines(Exported.open(path), device)
        assert [engine for engine in started if not engine.closed] == [engines.encoder, engines.head]
        assert [graph.file for graph in engines.graphs] == [engines.encoder.path.name, engines.head.path.name]
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
    assert (first.plan is not None) == encoder.endswith(".plan")


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
    monkeypatch.setattr(loading, "has_cuda", lambda: True)
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
    assert closed == ["encoder.onnx"]


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
