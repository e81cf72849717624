"""Runs that are killed, and resumed to the file of a run that was not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Ran, Run, spawn
from tests.support.images import Write
from tests.support.manifests import edit

IMAGES = 12

# What a run does to itself, before its command starts; `die` leaves no time to clean up.
DIE = """
import os, pathlib, signal
from spai_runtime.files import result_file, rows

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(owner, name, calls, then):
    real, left = getattr(owner, name), [calls]
    def counted(*arguments, **options):
        if not left[0]:
            then()
        left[0] -= 1
        return real(*arguments, **options)
    setattr(owner, name, counted)

def half(form):
    real = form.encode
    form.encode = lambda self, row: real(self, row)[: len(real(self, row)) // 2]
"""

MOMENTS = {
    "before a row": "after(result_file.ResultFile, 'write', 0, die)",
    "after a row": "after(result_file.ResultFile, 'write', 1, die)",
    "within a row": "after(result_file.ResultFile, 'write', 5, lambda: half(rows.Csv) or half(rows.JsonLines) or "
    "after(result_file.ResultFile, 'write', 0, die))",
    "after some rows": "after(result_file.ResultFile, 'write', 4, die)",
    "after all rows": "after(result_file.ResultFile, 'finish', 0, die)",
    "before the names": "after(pathlib.Path, 'replace', 0, die)",
    "after the record's name": "after(pathlib.Path, 'replace', 1, die)",
    "before the last name": "after(pathlib.Path, 'replace', 2, die)",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(IMAGES - 2):
        photo(f"p/{index}.png", 40, 30 + index, seed=index)
    photo("p/5, a\nnew line.png", 50, 50)
    Path("p/6.png").write_bytes(b"broken")
    Path("p/7b.png").touch()


def score(engine: Path, output: str, *options: object, prelude: str = "") -> Ran:
    return spawn("p", "--engine", engine, "--output", output, "--batch-size", 3, *options, prelude=prelude)


def kill(engine: Path, output: str, moment: str, *options: object) -> None:
    assert score(engine, output, *options, prelude=DIE + MOMENTS[moment]).code == -9


@pytest.fixture
def whole(tiny_detector: Path) -> dict[str, bytes]:
    """What uninterrupted runs write."""
    for name in ("whole.csv", "whole.jsonl"):
        assert score(tiny_detector, name).code == 3
    return {suffix: Path(f"whole{suffix}").read_bytes() for suffix in (".csv", ".jsonl")}


def test_killed_and_resumed(tiny_detector: Path, whole: dict[str, bytes]) -> None:
    """At one moment after the other, the last run always resumed by the next."""
    for moment in MOMENTS:
        kill(tiny_detector, "s.csv", moment, "--resume")
        assert not Path("s.csv").exists()
    ran = score(tiny_detector, "s.csv", "--resume")
    assert (ran.code, ran.stdout) == (3, "")
    assert Path("s.csv").read_bytes() == whole[".csv"]
    assert not list(Path().glob("*.partial"))


@pytest.mark.parametrize(("suffix", "moment"), [(".csv", "within a row"), (".jsonl", "within a row")])
def test_killed_within_a_row(tiny_detector: Path, whole: dict[str, bytes], suffix: str, moment: str) -> None:
    kill(tiny_detector, f"s{suffix}", moment)
    left = Path(f"s{suffix}.partial").read_bytes()
    assert whole[suffix].startswith(left)
    assert not left.endswith(b"\n")
    again = DIE + "from spai_runtime import images\nafter(images.Picture, 'open', 7, die)"  # five rows are kept
    assert score(tiny_detector, f"s{suffix}", "--resume", prelude=again).code == 3
    assert Path(f"s{suffix}").read_bytes() == whole[suffix]


@pytest.mark.parametrize("change", ["threshold", "detector", "graph"])
def test_another_run_starts_over(tiny_detector: Path, whole: dict[str, bytes], change: str) -> None:
    options = ("--threshold", 0.9) if change == "threshold" else ()
    engine = tiny_detector
    if change != "threshold":
        engine = Path(shutil.copytree(tiny_detector, "m"))
        if change == "graph":
            with (engine / "head.onnx").open("ab") as file:
                file.write(b"\x12\x01x")  # another producer's name
        edit(engine, **{"name": "another"} if change == "detector" else {})
    kill(engine, "s.csv", "after some rows", *options)
    none_may_be_missing = (
        DIE + "from spai_runtime import images\nafter(images.Picture, 'open', 11, lambda: print('all'))"
    )
    ran = score(tiny_detector, "s.csv", "--resume", prelude=none_may_be_missing)
    assert (ran.code, ran.stdout) == (3, "all\n")
    assert Path("s.csv").read_bytes() == whole[".csv"]


def test_resuming_what_is_complete_reads_no_image(tiny_detector: Path, whole: dict[str, bytes]) -> None:
    never = DIE + "from spai_runtime import images\nafter(images.Picture, 'open', 0, die)"
    assert score(tiny_detector, "whole.csv", "--resume", prelude=never).code == 3
    assert Path("whole.csv").read_bytes() == whole[".csv"]
    record = json.loads(Path("whole.csv.run.json").read_text())
    assert record["labels"]["error"] == 2
    assert sum(record["labels"].values()) == IMAGES


def test_an_image_that_was_added(tiny_detector: Path, photo: Write) -> None:
    kill(tiny_detector, "s.csv", "after some rows")
    photo("p/2b.png", 64, 64)
    assert score(tiny_detector, "s.csv", "--resume").code == 3
    assert score(tiny_detector, "fresh.csv").code == 3
    assert Path("s.csv").read_bytes() == Path("fresh.csv").read_bytes()
    assert Path("s.csv").read_text().count("p/2b.png") == 1


@pytest.mark.parametrize("change", ["another image", "gone", "back"])
def test_an_image_that_changed_after_the_interruption(tiny_detector: Path, photo: Write, run: Run, change: str) -> None:
    """The row of the image as it was would stay else; also when the run that is resumed had finished."""
    moved = Path("p/1.png").read_bytes()
    if change == "back":
        Path("p/1.png").unlink()
    listed = Path("l.txt")
    listed.write_text("".join(f"p/{index}.png\n" for index in range(8)))
    arguments = (listed, "--engine", tiny_detector, "--output")
    assert spawn(*arguments, "s.csv", prelude=DIE + MOMENTS["after some rows"]).code == -9
    assert run(*arguments, "finished.csv").code == 3
    if change == "back":
        Path("p/1.png").write_bytes(moved)
    elif change == "gone":
        Path("p/1.png").unlink()
    else:
        photo("p/1.png", 64, 90, seed=99)
    for output in ("s.csv", "finished.csv"):
        assert run(*arguments, output, "--resume").code == 3
    assert run(*arguments, "fresh.csv").code == 3
    assert Path("s.csv").read_bytes() == Path("finished.csv").read_bytes() == Path("fresh.csv").read_bytes()


def test_random_moments(tiny_detector: Path, whole: dict[str, bytes]) -> None:
    """In each run that is killed the next goes on; SPAI_KILLS=200 says how often."""
    kills = os.environ.get("SPAI_KILLS", "12")
    arguments = [sys.executable, "-m", "tests.support.kill_runs", kills, "p", "--engine", str(tiny_detector)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", env=environment, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["killed"] >= int(kills) // 2, "moments within a run"
    assert counted["finished"] > 0
    assert counted["digests"] == [hashlib.sha256(whole[".csv"]).hexdigest()]
