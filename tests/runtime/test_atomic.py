"""Files that appear when they are whole."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spai_runtime.errors import OutputError
from spai_runtime.files.atomic import atomic_directory, atomic_write


class StopError(BaseException):
    """What no `except Exception` catches, as an interrupt is."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.txt"])


def test_a_file_that_is_not_finished_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(StopError), atomic_write(path) as part:
        part.write_text("half")
        raise StopError
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.txt"])


def test_an_error_before_anything_is_written_is_the_one_that_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "nowhere" / "a.txt") as part:
        part.write_text("lost")


def test_the_files_of_a_directory_appear_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "directory"
    with atomic_directory(path, last="index") as folder:
        for name in ("z", "index", "a"):
            (folder / name).write_text(name)
        assert names(path) == [folder.name]
    assert names(path) == ["a", "index", "z"]


def test_the_last_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are replaced where there were some, and what was not written again stays."""
    for name in ("a", "index", "kept"):
        (tmp_path / name).write_text("old")
    moved, replace = [], Path.replace

    def noted(self: Path, target: Path) -> Path:
        moved.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    with atomic_directory(tmp_path, last="index") as folder:
        for name in ("index", "a", "z"):
            (folder / name).write_text("new")
    assert (sorted(moved[:-1]), moved[-1]) == (["a", "z"], "index")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "index": "new",
        "kept": "old",
        "z": "new",
    }


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_is_not_finished_is_as_it_was(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "directory"
    if there:
        path.mkdir()
        (path / "a").write_text("old")
    with pytest.raises(StopError), atomic_directory(path, last="index") as folder:
        (folder / "a").write_text("half")
        raise StopError
    if there:
        assert {path.name: path.read_text() for path in path.iterdir()} == {"a": "old"}
    else:
        assert not path.exists()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), atomic_directory(tmp_path / "file", last="index"):
        pytest.fail("a file is no directory")


OTHERS: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("victim"),
    "a link to nothing": lambda path: path.symlink_to("gone"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_is_written_through_what_is_no_file(tmp_path: Path, other: str) -> None:
    (tmp_path / "victim").write_text("kept")
    OTHERS[other](tmp_path / "a.txt.partial")
    message = r"cannot write .*a\.txt\.partial: a link, a folder, a pipe or a device"
    with pytest.raises(OutputError, match=message), atomic_write(tmp_path / "a.txt") as part:
        part.write_text("lost")
    assert names(tmp_path) == ["a.txt.partial", "victim"]
    assert (tmp_path / "victim").read_text() == "kept"


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").write_text("longer than what comes")
    with atomic_write(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert ((tmp_path / "a.txt").read_text(), names(tmp_path)) == ("new", ["a.txt"])


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    with atomic_write(tmp_path / "a") as part:
        part.touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


WRITER = """
import sys, time
from pathlib import Path
from spai_runtime.files.atomic import atomic_write
word = sys.argv[1]
for _ in range(20):
    with atomic_write(Path("a.txt")) as part, part.open("w") as file:
        for _ in range(50):
            file.write(word)
            file.flush()
            time.sleep(0.0002)
    assert len(set(Path("a.txt").read_text())) == 1
"""


def test_two_processes_do_not_mix(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", WRITER, word], cwd=tmp_path) for word in "xy"]
    assert [process.wait(60) for process in started] == [0, 0]
    assert (tmp_path / "a.txt").read_text() in ("x" * 50, "y" * 50)
    assert names(tmp_path) == ["a.txt"]
