"""The common part of the three commands: an exit code, and errors in one line on stderr."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated

import typer

from spai_runtime.cli.terminal import standard_streams, write_error, write_out
from spai_runtime.errors import RefusedError, UserError
from spai_runtime.text import visible

EXIT_ERROR = 2
EXIT_SOME_ERRORS = 3  # the others are done
EXIT_REFUSED = 4  # a file could do harm, and was not opened
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_READER_LEFT = 141  # 128 + SIGPIPE: whoever read stdout wanted no more
COMMON_CODES = (
    "Of every command: 4 a checkpoint, graph or plan was refused, because it asks for code or for other files, or is "
    "not the file that detector.json was written for; 130 interrupted; 141 whoever read stdout has left."
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spai-toolkit {version('spai-toolkit')}")
        raise typer.Exit


# Options that every command has; `execute` looks for --verbose itself.
VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]


def execute(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    :param arguments: None uses those of the process
    :returns: the exit code; tracebacks are shown only with --verbose
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with standard_streams(), _warnings_said(name):
            code: int = app(list(arguments), standalone_mode=False, prog_name=name) or 0
    except typer.TyperException as error:
        return _fail(name, f"{error.format_message().rstrip('.')}; see `{name} --help`")
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # as typer and rich end then, and typer when it has completed a word
        return 0 if f"_{name.upper().replace('-', '_')}_COMPLETE" in os.environ else EXIT_READER_LEFT
    except UserError as error:
        code = EXIT_REFUSED if isinstance(error, RefusedError) else EXIT_ERROR
        return _fail(name, str(error), code, verbose="--verbose" in arguments)
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {error}; --verbose shows where"
        return _fail(name, message, verbose="--verbose" in arguments)
    if code == EXIT_INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        say(f"{name}: interrupted; where there is --resume, it goes on from what is complete")
    return code


@contextmanager
def _warnings_said(name: str) -> Iterator[None]:
    """Send the packages' warnings to stderr: another engine than expected, a smaller batch, a GPU that is lost."""
    logger = logging.getLogger("spai_runtime")
    handler, level = _Said(name), logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO if sys.stderr.isatty() else logging.WARNING)  # what one waits for, on a terminal
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = True
        logger.removeHandler(handler)


class _Said(logging.Handler):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{self._name}: {record.getMessage()}")


def say(message: str) -> None:
    """Print one line on stderr, whatever the message holds; it is lost if nobody reads it."""
    write_error(visible(" ".join(message.split("\n"))))


def show(*lines: object) -> None:
    """Print lines on stdout; none of them can steer a terminal.

    :raises OutputError: stdout cannot be written
    """
    for line in lines:
        write_out(visible(str(line)))


def _fail(name: str, message: str, code: int = EXIT_ERROR, *, verbose: bool = False) -> int:
    if verbose:
        for line in traceback.format_exc().splitlines():
            write_error(visible(line))
    say(f"{name}: {message}")
    return code
