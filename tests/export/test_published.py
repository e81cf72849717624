"""What the process behind `spai-run --detector` makes of a row of the zoo, in this process."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spai_export import directory as exporting
from spai_export.zoo import make
from spai_runtime import Detector, zoo
from spai_runtime.errors import UserError
from spai_runtime.zoo import Wanted, directory, exported
from spai_train import hub as getting
from spai_train.published import Entry, PublishedFile
from spai_train.zoo import ZOO
from tests.support.hub import COMMIT, small_checkpoint

NAME = "community-forensics"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    path.write_bytes(small_checkpoint())
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fetched(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[PublishedFile]:
    """The hub gives the small checkpoint; :returns: what it was asked for"""
    asked: list[PublishedFile] = []

    def fetch(file: PublishedFile) -> getting.Fetched:
        asked.append(file)
        return getting.Fetched(checkpoint, COMMIT)

    monkeypatch.setattr(getting, "fetch", fetch)
    return asked


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """Changes the row of Community Forensics."""

    def change(**values: Any) -> Entry:
        entry = replace(ZOO[NAME], **values)
        monkeypatch.setitem(ZOO, NAME, entry)
        return entry

    return change


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """An export in no time, of files without a graph; :returns: what it does before detector.json, changeable"""
    before: list[Callable[[], None]] = []

    def write(_source: object, folder: Path, _origin: object) -> None:
        with exporting.writing(folder) as part:
            (part / "encoder.onnx").write_bytes(b"a graph")
            for do in before:
                do()
            (part / "detector.json").write_text("{}")

    monkeypatch.setattr(exporting, "write", write)
    return before


def refused(name: str, *, accept_licence: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        make(Wanted(name, accept_licence))
    return str(caught.value)


def test_an_export_of_what_was_fetched(fetched: list[PublishedFile], cache: Path) -> None:
    folder = make(Wanted(NAME))
    assert folder == directory(NAME)
    assert folder.is_relative_to(cache)
    content = json.loads((folder / "detector.json").read_text())
    assert (content["name"], content["detector"]) == (NAME, "community-forensics")
    assert content["provenance"]["published"] == {
        "repo": "OwensLab/commfor-model-384",
        "commit": COMMIT,
        "file": "model.safetensors",
    }
    assert content["provenance"]["licences"] == {"code": "MIT", "weights": "MIT"}
    assert {path.name for path in folder.iterdir()} == {"README.md", "detector.json", "encoder.onnx", "head.onnx"}
    with Detector.load(folder, device="cpu") as detector:
        assert detector.artifact is not None
        assert detector.artifact.precision == "fp32"
    assert make(Wanted(NAME)) == exported(Wanted(NAME)) == folder
    assert fetched == [ZOO[NAME].file]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_export_that_fails_leaves_nothing(
    fetched: list[PublishedFile], writes: list[Callable[[], None]], cache: Path, error: type[BaseException]
) -> None:
    def fails() -> None:
        raise error

    writes.append(fails)
    with pytest.raises((KeyboardInterrupt, UserError)):
        make(Wanted(NAME))
    assert fetched
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [f"{NAME}.lock"]
    writes.clear()
    assert make(Wanted(NAME)) == directory(NAME)


@pytest.mark.usefixtures("fetched", "writes")
def test_what_a_killed_process_left_is_not_taken_and_goes() -> None:
    left = directory(NAME) / ".partial-x" / "encoder.onnx"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a graph")
    (directory(NAME) / "encoder.onnx").write_bytes(b"another half")
    folder = make(Wanted(NAME))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "detector.json": b"{}",
        "encoder.onnx": b"a graph",
    }


@pytest.mark.usefixtures("fetched", "writes")
@pytest.mark.parametrize(("terminal", "quiet", "lines"), [(True, False, 2), (True, True, 0), (False, False, 0)])
def test_what_is_done_is_said_on_a_terminal(
    terminal: bool, quiet: bool, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    folder = make(Wanted(NAME, quiet=quiet))
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", lines)
    if lines:
        getting, exporting = said.err.splitlines()
        assert getting == f"spai-run: {NAME}: getting {ZOO[NAME].file.described}"
        assert exporting == f"spai-run: {NAME}: exporting it, once, into {folder}"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == str(int(quiet))


@pytest.mark.usefixtures("writes")
def test_terms_must_be_accepted(fetched: list[PublishedFile], row: Callable[..., Entry]) -> None:
    row(file=replace(ZOO[NAME].file, licence="CC-BY-NC-4.0"), non_commercial=True)
    said = refused(NAME)
    assert said.startswith(
        f"the weights of {NAME} are under CC-BY-NC-4.0, which allows no commercial use: give --accept-"
    )
    assert not fetched
    assert make(Wanted(NAME, accept_licence=True)) == directory(NAME)
    assert exported(Wanted(NAME)) == directory(NAME)


def test_a_name_that_there_is_not() -> None:
    said = refused("comunity-forensics")
    assert said.startswith("the zoo has no comunity-forensics (is it community-forensics or ")
    assert said.endswith(": `spai-train zoo` lists what there is")
    assert refused("xyz") == "the zoo has no xyz: `spai-train zoo` lists what there is"


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if not entry.on_hub])
def test_what_lies_elsewhere_is_named_with_what_to_do(name: str, cache: Path) -> None:
    entry, said = ZOO[name], refused(name)
    why = "is packed into an archive" if entry.unpacked else "does not lie on the Hugging Face hub"
    assert said.startswith(f"{name} {why}: get {entry.file.name}")
    assert entry.file.source in said
    assert f"`spai-export --detector {entry.detector} --ckpt {entry.unpacked or entry.file.name} " in said
    assert said.endswith(f"and give spai-run --engine {name}")
    if entry.tower is not None:
        assert f", and {entry.tower.name}" in said
        assert f" --tower {entry.tower.name} " in said
        assert entry.tower.source in said
    assert not cache.exists()


def test_what_the_hub_refuses_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_: PublishedFile) -> None:
        raise UserError("it has 12 bytes")

    monkeypatch.setattr(getting, "fetch", fetch)
    assert refused(NAME) == "it has 12 bytes"
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [f"{NAME}.lock"]


def test_a_file_of_another_detector(fetched: list[PublishedFile], row: Callable[..., Entry]) -> None:
    row(detector="spai")
    assert "is a checkpoint of community-forensics, not of spai" in refused(NAME)
    assert fetched


def test_a_cache_that_cannot_be_written(cache: Path, fetched: list[PublishedFile]) -> None:
    cache.write_text("a file")
    said = refused(NAME)
    assert said.startswith(f"cannot write {directory(NAME).parent}: ")
    assert said.endswith("; set SPAI_CACHE to a folder that can be written")
    assert not fetched


def test_a_lock_that_is_a_link(cache: Path, fetched: list[PublishedFile], tmp_path: Path) -> None:
    lock = directory(NAME).with_name(f"{NAME}.lock")
    lock.parent.mkdir(parents=True)
    lock.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(NAME) or "a link, a folder" in refused(NAME)
    assert not fetched
    assert not (tmp_path / "elsewhere").exists()
    assert cache.is_dir()


# ------------------------------------------------------------------------------------------------- where exports lie


def test_other_code_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout of which one line of one module is changed."""
    for package in ("spai_runtime", "spai_train", "spai_export"):
        (tmp_path / package / "detectors").mkdir(parents=True)
        (tmp_path / package / "detectors" / "one.py").write_text("a = 1\n")
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "spai_runtime" / "zoo.py"))
    folders = [directory(NAME)]
    for package in ("spai_train", "spai_export"):
        (tmp_path / package / "detectors" / "one.py").write_text("a = 2\n")
        folders.append(directory(NAME))
    (tmp_path / "spai_export" / "detectors" / "one.py").rename(tmp_path / "spai_export" / "detectors" / "two.py")
    folders.append(directory(NAME))
    assert len({*folders}) == 4
    (tmp_path / "spai_runtime" / "detectors" / "one.py").write_text("a = 2\n")  # which makes no export
    assert directory(NAME) == folders[-1]


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"SPAI_CACHE": "/somewhere", "XDG_CACHE_HOME": "/xdg"}, "/somewhere"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/spai-toolkit"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/spai-toolkit"),
        ("linux", {}, "/home/someone/.cache/spai-toolkit"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/someone/Library/Caches/spai-toolkit"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/spai-toolkit"),
        ("win32", {}, "/home/someone/AppData/Local/spai-toolkit"),
    ],
)
def test_the_users_cache(
    platform: str, environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPAI_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert directory(NAME).is_relative_to(Path(folder) / "zoo")


@pytest.fixture(scope="module", autouse=True)
def _no_hub() -> Iterator[None]:
    """Nothing here may reach a real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield
