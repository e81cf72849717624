"""Exit codes, and errors in one line."""

import errno
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

import spai_runtime
from spai_export.cli import app as export_app
from spai_runtime.cli.commands import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_READER_LEFT, EXIT_REFUSED, execute, say, show
from spai_runtime.cli.run import app as run_app
from spai_runtime.errors import ImageError, RefusedError, UserError
from spai_train.cli import COMMANDS
from spai_train.cli import app as train_app
from spai_train.cli import main as spai_train
from tests.support.commands import Run, command
from tests.support.images import Write


def app(action: Callable[[], int | None]) -> typer.Typer:
    built = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @built.command()
    def command(verbose: bool = False, number: int = 0) -> int | None:  # noqa: ARG001
        return action()

    return built


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_what_the_command_returns(returned: int | None, code: int) -> None:
    assert execute(app(lambda: returned), "spai", []) == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("do this"), EXIT_ERROR, "spai: do this\n"),
        (RefusedError("it asks for code"), EXIT_REFUSED, "spai: it asks for code\n"),
        (ImageError("two\nlines"), EXIT_ERROR, "spai: two lines\n"),
        (KeyError("x"), EXIT_ERROR, "spai: unexpected KeyError: 'x'; --verbose shows where\n"),
        (
            typer.Abort(),
            EXIT_INTERRUPTED,
            "spai: interrupted; where there is --resume, it goes on from what is complete\n",
        ),
        (typer.BadParameter("no good."), EXIT_ERROR, "spai: Invalid value: no good; see `spai --help`\n"),
    ],
)
def test_an_error_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(raising(error)), "spai", []) == code
    assert capsys.readouterr() == ("", line)


def test_an_interruption_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(raising(KeyboardInterrupt())), "spai", []) == EXIT_INTERRUPTED
    assert "--resume" in capsys.readouterr().err


def test_a_reader_that_left_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))), "spai", []) == EXIT_READER_LEFT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [UserError("do this"), KeyError("x")])
def test_verbose_shows_where_and_keeps_the_exit_code(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(raising(error)), "spai", ["--verbose"]) == EXIT_ERROR
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "test_commands.py" in shown
    assert shown.splitlines()[-1].startswith("spai: ")


@pytest.mark.parametrize("arguments", [["--unknown"], ["--number", "x"], ["extra"]])
def test_usage_errors_point_to_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(lambda: 0), "spai", arguments) == EXIT_ERROR
    shown = capsys.readouterr().err
    assert shown.endswith("see `spai --help`\n")
    assert shown.count("\n") == 1


def test_arguments_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["spai", "--unknown"])
    assert execute(app(lambda: 0), "spai") == EXIT_ERROR


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(lambda: 7), "spai", ["--help"]) == 0
    assert "Usage: spai" in capsys.readouterr().out


def test_say_is_one_line_of_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb \udce9 é \x1b[2J\r\x9b\u202e")
    assert capsys.readouterr().err == "a b \\udce9 é \\x1b[2J\\r\\x9b\\u202e\n"


def test_show_is_a_line_for_each_argument(capsys: pytest.CaptureFixture[str]) -> None:
    show(Path("a\x1b[2J\nb.csv"), "é \udce9", 7)
    assert capsys.readouterr().out == "a\\x1b[2J\\nb.csv\né \\udce9\n7\n"


def test_a_traceback_cannot_steer_the_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(app(raising(UserError("\x1b[2J"))), "spai", ["--verbose"]) == EXIT_ERROR
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "\x1b" not in shown
    assert shown.count("\\x1b[2J") == 2


def test_the_package_is_a_command_and_has_a_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spai_runtime", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"spai-toolkit {spai_runtime.__version__}\n"
    assert spai_runtime.__version__ == version("spai-toolkit")
    assert not hasattr(spai_runtime, "nothing")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_spai_train_lists_its_commands_with_whole_summaries(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert spai_train(arguments) == (0 if arguments else EXIT_ERROR)
    said = capsys.readouterr()
    assert said.err == ""
    words = " ".join(said.out.split())
    for module in COMMANDS:
        summary = " ".join((inspect.getdoc(module.run) or "").partition("\n\n")[0].split())
        assert summary.endswith(".")
        assert f"{module.__name__.rpartition('.')[2]} {summary}" in words


@pytest.mark.parametrize("app", [run_app, export_app, train_app], ids=["spai-run", "spai-export", "spai-train"])
def test_help_of_an_option_says_what_it_does_or_is(app: typer.Typer) -> None:
    """And is no fragment of a sentence whose beginning a newcomer must guess, such as "Of the bootstrap."."""
    command = typer.main.get_command(app)
    for one in getattr(command, "commands", {"": command}).values():
        for parameter in one.params:
            said = getattr(parameter, "help", None) or ""
            first = said.partition(" ")[0]
            assert first not in {"Of", "For", "That", "Whose", "Which", "To", "With", "As", "Through", "In"}, said
            assert said.endswith((".", "]", ")")), said


@pytest.mark.parametrize(
    ("main", "name", "line", "expected"),
    [
        ("spai_runtime.cli.run", "spai-run", "spai-run --dev", "--device"),
        ("spai_export.cli", "spai-export", "spai-export --prec", "--precision"),
        ("spai_train.cli", "spai-train", "spai-train eva", "evaluate"),
        ("spai_train.cli", "spai-train", "spai-train evaluate --calib", "--calibrate"),
    ],
)
def test_the_shell_completes_words(main: str, name: str, line: str, expected: str) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = {**os.environ, **words, f"_{name.upper().replace('-', '_')}_COMPLETE": "complete_bash"}
    done = subprocess.run(command(main=main), env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [expected], "")


def test_short_options_are_the_long_ones(run: Run, photo: Write, tiny_detector: Path) -> None:
    folder = photo("a.png", 60, 70).parent
    short = run(folder, "--engine", tiny_detector, "-o", folder / "short.csv", "-d", "cpu", "-t", 0.25)
    long = run(
        folder / "a.png",
        "--engine",
        tiny_detector,
        "--output",
        folder / "long.csv",
        "--device",
        "cpu",
        "--threshold",
        0.25,
    )
    assert (short.code, long.code) == (0, 0)
    assert (folder / "short.csv").read_bytes() == (folder / "long.csv").read_bytes()
