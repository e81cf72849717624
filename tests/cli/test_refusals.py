"""A file that could do harm ends each command in exit code 4, one that is missing or broken in 2."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from spai_export.cli import main as spai_export
from spai_runtime.cli.run import main as spai_run
from spai_runtime.manifest import Artifact, Graph, Manifest
from spai_train.cli import main as spai_train
from tests.support.images import Write
from tests.support.manifests import edit

Main = Callable[[Sequence[str]], int]


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write, tiny_detector: Path) -> None:
    monkeypatch.chdir(tmp_path)
    photo("a.png", 40, 40)
    rows = [f"a.png,{label},{split}\n" for label in (0, 1) for split in ("train", "val", "test")]
    Path("t.csv").write_text("image,class,split\n" + "".join(rows))
    torch.save({"model": Exploit()}, "evil.pth")
    Path("broken.pth").write_bytes(b"PK\x03\x04 torn")
    shutil.copytree(tiny_detector, "m")


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (spai_export, ["--output", "o", "--ckpt"]),
        (spai_train, ["evaluate", "t.csv", "--output", "o", "--ckpt"]),
        (spai_train, ["tsne", "t.csv", "--output", "o", "--ckpt"]),
        (spai_train, ["fit", "--data", "t.csv", "--set", "batch_size=2", "--output", "o", "--start"]),
        (spai_train, ["convert"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_checkpoints(main: Main, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    if arguments[:1] == ["convert"]:
        ended = [main([*arguments, name, "o.safetensors"]) for name in ("evil.pth", "broken.pth", "gone.pth")]
    else:
        ended = [main([*arguments, name]) for name in ("evil.pth", "broken.pth", "gone.pth")]
    said = capfd.readouterr().err.splitlines()
    assert ended == [4, 2, 2], said
    assert "evil.pth was refused: its pickle asks for" in said[0]
    assert not Path("ran").exists()


def external(graph: Path) -> None:
    """Its first tensor moves to a file outside, which exists."""
    model = onnx.load(graph)
    tensor = model.graph.initializer[0]
    Path("outside").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    graph.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(spai_run, ["a.png", "--engine"]), (spai_train, ["evaluate", "t.csv", "--output", "o", "--engine"])],
    ids=["spai-run", "spai-train"],
)
def test_graphs(main: Main, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    external(Path("m/head.onnx"))
    assert main([*arguments, "m"]) == 4, "another sha256"
    edit(Path("m"))
    assert main([*arguments, "m"]) == 4, "external data"
    Path("m/head.onnx").unlink()
    assert main([*arguments, "m"]) == 2
    said = capfd.readouterr().err.splitlines()
    for line, message in zip(said, ("sha256 differs", "keeps tensors in other files", "is missing"), strict=True):
        assert message in line


def test_auto_passes_over_what_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """And ends in 4 where nothing is left."""
    shutil.copy("m/encoder.onnx", "m/encoder.fp16.onnx")
    graphs = (Graph.of(Path("m/encoder.fp16.onnx")), Graph.of(Path("m/head.onnx")))
    manifest = Manifest.load(Path("m"))
    both = *manifest.artifacts, Artifact("onnx", "fp16", *graphs)
    Path("m/detector.json").write_bytes(replace(manifest, artifacts=both).dump())
    Path("m/encoder.onnx").write_bytes(b"another file")
    assert spai_run(["a.png", "--engine", "m", "--device", "cpu"]) == 0
    assert "m/encoder.onnx is not the file that detector.json was written for" in capfd.readouterr().err
    Path("m/encoder.fp16.onnx").write_bytes(b"another file")
    assert spai_run(["a.png", "--engine", "m", "--device", "cpu"]) == 4


@pytest.mark.parametrize("main", [spai_run, spai_export, spai_train])
def test_help_names_the_exit_code(main: Main, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["index"], ["fit"], ["convert"]) if main is spai_train else ([],):
        assert main([*command, "--help"]) == 0
        assert "4 a checkpoint, graph or plan was refused" in " ".join(capfd.readouterr().out.split())
