"""Runs that want the same file, or one that somebody else needs: it is that of one of them, or they are refused."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import Ran, Run, command
from tests.support.images import Write
from tests.support.manifests import edit

ROWS = 60


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    monkeypatch.chdir(tmp_path)
    photo("p/a.png", 40, 40)
    photo("p/b.png", 50, 60, seed=1)


SLOW = """
import time
from spai_runtime.files.result_file import ResultFile
real = ResultFile.write
ResultFile.write = lambda self, result: (real(self, result), time.sleep(0.02))
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments, prelude=SLOW), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def ended(process: subprocess.Popen[str]) -> Ran:
    stdout, stderr = process.communicate(timeout=60)
    return Ran(process.returncode, stdout, stderr)


@pytest.mark.parametrize("second", ["threshold", "detector", "the same", "resume"])
def test_two_runs_of_one_output(run: Run, tiny_detector: Path, second: str) -> None:
    """The second begins while the first goes on; both begin again together; each ends alone in a file of its own."""
    engine = Path(shutil.copytree(tiny_detector, "m"))
    edit(engine, name="another")
    inputs = ["p/a.png", "p/b.png"] * (ROWS // 2)
    first = [*inputs, "--engine", tiny_detector, "--precision", "fp32"]
    other = {
        "threshold": [*first, "--threshold", 0.001],
        "detector": [*inputs, "--engine", engine, "--precision", "fp32", "--threshold", 0.001],
        "the same": first,
        "resume": [*first, "--resume"],
    }[second]
    expected = []
    for number, arguments in enumerate((first, other)):
        assert run(*arguments, "--output", f"{number}.csv").code == 0
        expected.append((Path(f"{number}.csv").read_bytes(), json.loads(Path(f"{number}.csv.run.json").read_text())))
    processes = [started(*first, "--output", "s.csv"), started(*other, "--output", "s.csv")]
    both = [ended(process) for process in processes]
    assert sorted(ran.code for ran in both) == [0, 2], both
    winner, loser = (0, 1) if both[0].code == 0 else (1, 0)
    refused = "spai-run: another run is writing s.csv.partial: wait until it has ended, or name another --output\n"
    assert both[loser].stderr == refused
    assert both[winner].stderr == ""
    content, record = expected[winner]
    assert Path("s.csv").read_bytes() == content
    assert json.loads(Path("s.csv.run.json").read_text()) == record
    assert sorted(path.name for path in Path().glob("s.csv*")) == ["s.csv", "s.csv.resume", "s.csv.run.json"]


def test_a_finished_output_is_replaced_after_a_line_that_says_so(run: Run, tiny_detector: Path) -> None:
    options = "p", "--engine", tiny_detector, "--output", "s.csv"
    line = "spai-run: s.csv is there already; it is replaced when this run is complete\n"
    assert run(*options).stderr == ""
    assert run(*options, "--resume").stderr == ""
    assert run(*options).stderr == line
    assert run(*options, "--quiet").stderr == line
    assert run(*options, "--resume", "--threshold", 0.9).stderr == line


@pytest.mark.parametrize("suffix", ["", ".run.json", ".resume", ".partial"])
@pytest.mark.parametrize("way", ["list", "image", "listed", "glob", "folder", "link", "hard link"])
def test_no_input_is_written_over(run: Run, tiny_detector: Path, way: str, suffix: str) -> None:
    """By whatever name it is an input, and whichever file of the output it is."""
    target = Path(f"s.csv{suffix}")
    shutil.copy("p/a.png", target)
    inputs = [str(target)]
    if way == "list" or (way in ("image", "glob") and not suffix):
        target.write_text("image\np/a.png\n")
    if way == "list":
        Path("list.csv").hardlink_to(target)
        inputs = ["list.csv"]
    elif way == "listed":
        Path("l.txt").write_text(f"p/b.png\n{target}\n")
        inputs = ["l.txt"]
    elif way == "glob":
        inputs = [f"*{target.suffix}"]
    elif way in ("folder", "link", "hard link"):
        linked = Path("p/z.png")
        linked.hardlink_to(target) if way == "hard link" else linked.symlink_to(target.absolute())
        inputs = ["p"] if way == "folder" else ["p/z.png"]
    before = target.read_bytes()
    for more in ((), ("--resume",)):
        ran = run(*inputs, "--engine", tiny_detector, "--output", "s.csv", *more)
        assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert f"is an input, and the run would replace it as {target}: name another --output" in ran.stderr
        assert target.read_bytes() == before
    assert len([path for path in Path().iterdir() if path.name.startswith("s.csv")]) == 1


def test_an_output_is_a_file_or_nothing(run: Run, tiny_detector: Path) -> None:
    Path("victim").write_text("kept")
    Path("link.csv").symlink_to("victim")
    os.mkfifo("pipe.csv")
    Path("folder.csv").mkdir()
    for name in ("link.csv", "pipe.csv", "folder.csv"):
        ran = run("p", "--engine", tiny_detector, "--output", name)
        line = f"spai-run: cannot write {name}: a link, a folder, a pipe or a device is there; "
        assert (ran.code, ran.stderr) == (2, f"{line}remove it or name another output\n")
    assert Path("victim").read_text() == "kept"
