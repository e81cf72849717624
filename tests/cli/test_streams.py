"""stdout and stderr that are closed, full, or read by nobody; and text that would steer a terminal."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from spai_train.cli import main as spai_train
from tests.support.commands import Ran, Run, command
from tests.support.images import Write
from tests.support.manifests import edit

READER_LEFT = 141
LOST = "spai-run: stdout is closed, and the rows would be lost: name a file with --output\n"
FULL = "spai-run: cannot write to stdout: No space left on device\n"
NOISE = """
import os
from spai_runtime.scoring import reading
real = reading.Reader.read
def read(*arguments):
    os.write(1, b"noise"), os.write(2, b"noise")
    return real(*arguments)
reading.Reader.read = read
"""  # as a C library writes, past Python's streams


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    monkeypatch.chdir(tmp_path)
    photo("a.png", 40, 40)


def redirected(redirection: str, started: Sequence[str]) -> Ran:
    """What a shell makes of a command and a redirection."""
    done = subprocess.run(
        f"{shlex.join(started)} {redirection}", shell=True, capture_output=True, encoding="utf-8", check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def unread(started: Sequence[str], stream: str) -> Ran:
    """A command one of whose streams is a pipe that its reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    done = subprocess.run(started, **streams, encoding="utf-8", check=False)  # type: ignore[call-overload]
    os.close(writing)
    return Ran(done.returncode, done.stdout or "", done.stderr or "")


@pytest.mark.parametrize(
    ("redirection", "code", "stderr"),
    [(">&-", 2, LOST), (">&- 2>&-", 2, ""), ("<&- >&- 2>&-", 2, ""), (">/dev/full", 2, FULL)],
)
def test_rows_that_have_nowhere_to_go(tiny_detector: Path, redirection: str, code: int, stderr: str) -> None:
    ran = redirected(redirection, command("a.png", "--engine", tiny_detector))
    assert ran == Ran(code, "", stderr)


def test_a_closed_stderr_takes_nothing_from_the_rows(tiny_detector: Path) -> None:
    Path("l.txt").write_text("a.png\ngone.png\n")
    started = command("l.txt", "--engine", tiny_detector)
    open_ones = redirected("", started)
    assert (open_ones.code, open_ones.stderr.count("could not be scored")) == (3, 1)
    assert redirected("2>&-", started) == Ran(3, open_ones.stdout, "")
    assert unread(started, "stderr") == Ran(3, open_ones.stdout, "")


def test_no_file_gets_the_number_of_a_closed_stream(tiny_detector: Path) -> None:
    """What libraries print would be in it."""
    started = command("a.png", "--engine", tiny_detector, "--output", "s.csv", prelude=NOISE)
    assert redirected("<&- >&- 2>&-", started) == Ran(0, "", "")
    assert "noise" not in Path("s.csv").read_text()
    expected = redirected("", command("a.png", "--engine", tiny_detector)).stdout
    assert Path("s.csv").read_text() == expected


def test_a_reader_that_has_left(tiny_detector: Path) -> None:
    for arguments in (("a.png", "--engine", tiny_detector), ("--help",)):
        assert unread(command(*arguments), "stdout") == Ran(READER_LEFT, "", "")
    with_output = command("a.png", "--engine", tiny_detector, "--output", "s.csv")
    assert unread(with_output, "stdout") == Ran(0, "", "")


def test_a_reader_that_leaves_after_a_line(tiny_detector: Path) -> None:
    """More rows than a pipe holds."""
    Path("l.txt").write_text(f"{'x' * 200}.png\n" * 400)
    with subprocess.Popen(
        command("l.txt", "--engine", tiny_detector), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith("path,")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == READER_LEFT


@pytest.mark.parametrize("main", ["spai_train.cli", "spai_export.cli"])
def test_the_other_commands(main: str) -> None:
    Path("real").mkdir()
    shutil.copy("a.png", "real")
    arguments = ("index", "--real", "real", "--output", "t.csv") if main == "spai_train.cli" else ("--version",)
    started = command(*arguments, main=main)
    assert unread(started, "stdout") == Ran(READER_LEFT, "", "")
    assert redirected(">&- 2>&-", started) == Ran(0, "", "")


@pytest.mark.parametrize(
    "encoding",
    [{"LC_ALL": "C"}, {"LANG": "C", "LC_ALL": ""}, {"PYTHONIOENCODING": "ascii"}],
    ids=["LC_ALL", "LANG", "ASCII"],
)
def test_any_locale(tiny_detector: Path, encoding: dict[str, str]) -> None:
    """Of the system, or one that has no more than ASCII."""
    Path("a.png").rename("é—\udce9.png")
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "PYTHONUTF8")} | encoding
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    started = command("é—\udce9.png", "--engine", tiny_detector, "--format", "table")
    done = subprocess.run(started, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"real" in done.stdout or b"ai" in done.stdout
    helped = subprocess.run(command("--help"), capture_output=True, env=environment, check=False)
    assert (helped.returncode, helped.stderr) == (0, b"")


STEERS = "\x1b[2J\x9b\x07\u202e"


def test_nothing_steers_the_terminal(run: Run, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a path, a list's header, a detector's notice, or its name in a warning."""
    engine = Path(shutil.copytree(tiny_detector, "m"))
    edit(engine, notice=STEERS, name=STEERS)
    monkeypatch.setattr("spai_runtime.detector.demo_directory", lambda: engine)
    Path(f"{STEERS}.csv").write_text(f"{STEERS}\nx\n")
    Path(f"{STEERS}.png").write_text("broken")
    told = [
        run(f"{STEERS}.jpg"),
        run(f"{STEERS}.csv"),
        run("a.png", f"--{STEERS}"),
        run("a.png", "--device", STEERS),
        run("a.png"),
        run(f"{STEERS}.png", "--format", "table"),
        run("a.png", "--engine", "m", "--engine", "m", "--format", "table"),
    ]
    assert [ran.code for ran in told] == [2, 2, 2, 2, 0, 3, 0]
    for number, ran in enumerate(told):
        shown = ran.stderr + (ran.stdout if number > 4 else "")
        assert shown.replace("\n", "").isprintable(), number
        assert number == 6 or "\\x1b[2J\\x9b\\x07\\u202e" in shown, number


def test_nor_the_terminal_of_training(capfd: pytest.CaptureFixture[str]) -> None:
    Path(f"real{STEERS}").mkdir()
    shutil.copy("a.png", f"real{STEERS}")
    Path(f"real{STEERS}/{STEERS}.png").write_text("broken")
    assert spai_train(["index", "--real", f"real{STEERS}", "--output", f"{STEERS}.csv", "--split", STEERS]) == 3
    shown = capfd.readouterr()
    for text in (shown.out, shown.err):
        assert text.replace("\n", "").isprintable()
        assert "\\x1b[2J" in text
