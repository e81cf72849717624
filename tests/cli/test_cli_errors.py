"""Where nothing can run: exit code 2, or 4 where something is refused, and one line on stderr that says what to do."""

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from spai_train.cli import main as spai_train
from tests.support.commands import Run, spawn
from tests.support.folders import deep_folders
from tests.support.images import Write
from tests.support.manifests import edit

Spoil = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    """A folder with an image, and lists that cannot be used."""
    monkeypatch.chdir(tmp_path)
    photo("a.png", 40, 40)
    Path("empty").mkdir()
    Path("no_image.csv").write_text("name,class\na.png,1\n")
    Path("splits.csv").write_text("image,split\na.png,val\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to score: name images, folders"),
        (["empty"], "no images in empty"),
        (["gone.png"], "there is no file, folder or match for gone.png"),
        (["gone/*.png"], "there is no file, folder or match for gone/*.png"),
        (["a.png", "--unknown"], "No such option: --unknown"),
        (["a.png", "--device", "tpu"], "no such device: tpu; use auto, cpu, cuda:0, or cuda:0,1 for two GPUs"),
        (["a.png", "--device", "cuda:one"], "no such device: cuda:one; use auto, cpu, cuda:0, or cuda:0,1"),
        (["a.png", "--device", "cuda:0"], "this ONNX Runtime has no CUDA: pip install '.[gpu]'"),
        (["a.png", "--resume"], "--resume goes on with a file: name it with --output"),
        (["a.png", "--output", "x.txt"], "cannot write x.txt: name it .csv or .jsonl"),
        (["a.png", "--output", "a.png/x.csv"], "cannot write a.png/x.csv: "),
        (["a.png", "--split", "val"], "--split needs a CSV input with a `split` column"),
        (["no_image.csv"], "no_image.csv has no column image or filename; it has: name, class"),
        (["splits.csv", "--split", "test"], "no images in the split test in splits.csv"),
        (["a.png", "--threshold", "1.1"], "Invalid value for '--threshold'"),
        (["a.png", "--threshold", "nan"], "Invalid value for '--threshold'"),
        (["a.png", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["a.png", "--format", "xml"], "Invalid value for '--format'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(
    run: Run, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    check(run, message, *arguments, "--engine", str(tiny_detector))
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "empty", "no_image.csv", "splits.csv"]


def check(run: Run, message: str, *arguments: str, code: int = 2) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (code, "")
    assert ran.stderr.startswith("spai-run: ")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr


def replaced(name: str, old: str, new: str) -> Spoil:
    def spoil(engine: Path) -> None:
        content = (engine / name).read_text()
        assert old in content
        (engine / name).write_text(content.replace(old, new, 1))

    return spoil


def removed(name: str) -> Spoil:
    return lambda engine: (engine / name).unlink()


def content(name: str, data: bytes) -> Spoil:
    def spoil(engine: Path) -> None:
        (engine / name).write_bytes(data)

    return spoil


def swapped(engine: Path) -> None:
    (engine / "head.onnx").rename(engine / "x")
    (engine / "encoder.onnx").rename(engine / "head.onnx")
    (engine / "x").rename(engine / "encoder.onnx")
    edit(engine)


def external(engine: Path) -> None:
    """Its first tensor moves to a file outside, which exists."""
    model = onnx.load(engine / "head.onnx")
    tensor = model.graph.initializer[0]
    (engine.parent / "outside").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    (engine / "head.onnx").write_bytes(model.SerializeToString())
    edit(engine)


def hidden(in_subgraph: bool) -> Spoil:
    """A Constant of external data that nothing uses, perhaps within a branch."""

    def spoil(engine: Path) -> None:
        np.zeros(4, np.float32).tofile(engine.parent / "outside")
        tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../outside")
        node = helper.make_node("Constant", [], ["unused"], value=tensor)
        if in_subgraph:
            out = helper.make_tensor_value_info("unused", TensorProto.FLOAT, [4])
            branch = helper.make_graph([node], "branch", [], [out])
            node = helper.make_node("If", ["condition"], ["unused2"], then_branch=branch, else_branch=branch)
        model = onnx.load(engine / "encoder.onnx")
        model.graph.node.append(node)
        (engine / "encoder.onnx").write_bytes(model.SerializeToString())
        edit(engine)

    return spoil


SPOILED: dict[str, tuple[Spoil, str]] = {
    "no manifest": (removed("detector.json"), "there is no detector.json in m; give --engine a directory that"),
    "no head": (removed("head.onnx"), "head.onnx is missing in m; copy it there or export again"),
    "no encoder": (removed("encoder.onnx"), "encoder.onnx is missing in m; copy it there or export again"),
    "newer": (
        replaced("detector.json", '"schema": 3', '"schema": 5'),
        "has schema 5, and this spai-toolkit reads up to 4",
    ),
    "cut": (content("detector.json", b'{"schema": 1,'), "m/detector.json is not a detector.json: "),
    "no json": (content("detector.json", b"\x80\x81"), "m/detector.json is not a detector.json: "),
    "escape": (
        replaced("detector.json", '"head.onnx"', '"../m/head.onnx"'),
        "m/detector.json is not a detector.json: ",
    ),
    "stride": (replaced("detector.json", '"stride": 32', '"stride": 0'), "both must be at least 1"),
    "digest": (content("head.onnx", b"other"), "m/head.onnx is not the file that detector.json was written for"),
    "swapped": (swapped, "m/encoder.onnx does not match detector.json: it should have views uint8 (views, 32, 32, 3)"),
    "width": (lambda engine: edit(engine, features=7), "does not match detector.json: it should have features float32"),
    "external": (external, "m/head.onnx keeps tensors in other files, which is refused"),
    "constant": (hidden(in_subgraph=False), "m/encoder.onnx keeps tensors in other files, which is refused"),
    "subgraph": (hidden(in_subgraph=True), "m/encoder.onnx keeps tensors in other files, which is refused"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_engines(run: Run, tiny_detector: Path, case: str) -> None:
    spoil, message = SPOILED[case]
    spoil(Path(shutil.copytree(tiny_detector, "m")))
    code = 4 if case in ("digest", "external", "constant", "subgraph") else 2  # what could do harm is refused
    check(run, message, "a.png", "--engine", "m", code=code)


def test_no_engine_there(run: Run) -> None:
    check(run, "there is no m; `spai-export --ckpt CHECKPOINT --output m` would make it", "a.png", "--engine", "m")
    check(run, "there is no detector.json in empty", "a.png", "--engine", "empty")


def test_a_graph_that_is_none(run: Run, tiny_detector: Path) -> None:
    shutil.copytree(tiny_detector, "m")
    Path("m/head.onnx").write_bytes(b"\x3a\x05text")
    edit(Path("m"))
    check(run, "m/head.onnx is not an ONNX graph", "a.png", "--engine", "m")


def test_verbose_shows_the_traceback(run: Run) -> None:
    ran = run("a.png", "--engine", "m", "--verbose")
    assert ran.code == 2
    assert "Traceback (most recent call last)" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("spai-run: there is no m;")


def test_a_disk_that_is_full(tiny_detector: Path) -> None:
    """And room is made, and the run is resumed."""
    images = ["a.png"] * 40
    arguments = *images, "--engine", tiny_detector, "--output", "s.csv"
    full = spawn(*arguments, prelude="import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))")
    line = "spai-run: cannot write s.csv.partial: File too large; --resume goes on from here\n"
    assert (full.code, full.stdout, full.stderr) == (2, "", line)
    assert not Path("s.csv").exists()
    assert spawn(*arguments, "--resume").code == 0
    assert Path("s.csv").read_text().count("a.png") == 40


def test_folders_deeper_than_any_path(run: Run, tiny_detector: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What cannot be reached is a row, of a run and of an index."""
    with deep_folders(Path("deep"), 990, image=Path("a.png").read_bytes()):
        ran = run("deep", "--engine", tiny_detector)
        assert (ran.code, ran.stderr, ran.stdout.count("\n")) == (0, "", 22)
        assert spai_train(["index", "--real", "deep", "--output", "t.csv"]) == 0
    with deep_folders(Path("long"), 25, "d" * 200):
        shutil.copy("a.png", "long")
        ran = run("long", "--engine", tiny_detector)
        assert (ran.code, ran.stdout.count("\n"), ran.stdout.count("cannot be read: File name too long")) == (3, 3, 1)
        capfd.readouterr()
        assert spai_train(["index", "--real", "long", "--output", "t.csv"]) == 3
        assert "dd: cannot be read: File name too long\n" in capfd.readouterr().err


def test_twenty_thousand_columns(run: Run, tiny_detector: Path) -> None:
    """Comparing each with each took minutes."""
    columns = ["image", *(f"column {number}" for number in range(20_000))]
    row = ",".join(["a.png", *map(str, range(20_000))])
    Path("wide.csv").write_text(f"{','.join(columns)}\n" + f"{row}\n" * 20)
    start = time.process_time()
    assert run("wide.csv", "--engine", tiny_detector, "--output", "s.csv").code == 0
    assert run("wide.csv", "--engine", tiny_detector, "--output", "s.csv", "--resume").code == 0
    assert time.process_time() - start < 20
    with Path("s.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:20_001] == columns
    assert [line[:20_001] for line in rows] == [row.split(",")] * 20
