"""The other end of stdout and stderr: it may be a terminal, which text must not steer, or nobody."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from spai_runtime.errors import OutputError


class _Nowhere(io.TextIOWrapper):
    """A stand-in for a stream that the caller closed; what is written to it is lost."""


def is_closed(stream: TextIO) -> bool:
    """Whether the caller had closed the stream when the command began."""
    return isinstance(stream, _Nowhere)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make stdout and stderr writable, whatever state the caller left them in, and able to hold any character.

    :raises BrokenPipeError: at the end of the block: whoever read stdout has left
    :raises OutputError: at the end of the block: what stdout still held cannot be written
    """
    _fill_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or _Nowhere(Path(os.devnull).open("wb"))  # noqa: SIM115  for as long as the process
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the encoding lacks is written as escapes
        setattr(sys, name, stream)
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams  # typer puts another in their place when a reader has left
        with _as_output_error():
            _flush(sys.stdout)


def write_error(line: str) -> None:
    """Write a line to stderr; it is lost if nobody reads it."""
    with suppress(OSError):
        try:
            sys.stderr.write(f"{line}\n")
        finally:
            _flush(sys.stderr)


def write_out(line: str) -> None:
    """Write a line to stdout.

    :raises BrokenPipeError: whoever read stdout has left
    :raises OutputError: it cannot be written
    """
    with _as_output_error():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


@contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror}") from error


def _fill_descriptors() -> None:
    """Open the null device in place of closed standard streams. Otherwise the next file that is opened would get the
    number of one of them, and what libraries print would go into that file."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _flush(stream: TextIO) -> None:
    """Flush a stream.

    :raises OSError: it cannot be written; its content is dropped, or Python would try again when it ends
    """
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # no stream of the system's
            target, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, target)
            os.close(null)
        raise
