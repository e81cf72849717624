"""Sinks: where results go, and a stream as one."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Protocol

from spai_runtime.closing import Closing
from spai_runtime.errors import OutputError
from spai_runtime.files.rows import Columns, Format
from spai_runtime.files.sources import Item
from spai_runtime.results import Result

Kept = Callable[[Mapping[str, Any], Item], None]  # is given each row that an earlier run has left, and its item


def forget(_row: Mapping[str, Any], _item: Item) -> None:
    """For whom rows of an earlier run need nothing more."""


class Sink(Closing, Protocol):
    """Where rows go. Use it in a `with`.

    :param replaces: whether there is a finished file, of which rows go when all of this run's are written
    """

    columns: Columns
    replaces: bool = False

    def skip(self, items: Iterator[Item], kept: Kept = forget) -> tuple[Iterator[Item], Counter[str]]:
        """:param kept: is called for each row that an earlier run has left
        :returns: the items still to do, and how many rows of which label (or `error`) an earlier run has left"""

    def write(self, result: Result) -> None:
        """One row, handed to the system at once: a killed process loses none."""

    def finish(self, **record: Any) -> None:
        """All rows are written. :param record: what the record of the run says beside what its rows depend on"""


class Stream(Sink):
    """Rows to a stream, as they come."""

    def __init__(self, stream: IO[str], form: Format, columns: Columns) -> None:
        self._stream, self._format, self.columns = stream, form, columns
        self._write(form.header(columns.names))

    def skip(self, items: Iterator[Item], kept: Kept = forget) -> tuple[Iterator[Item], Counter[str]]:  # noqa: ARG002
        """See `ResultFile`: a stream has no rows of an earlier run."""
        return items, Counter()

    def write(self, result: Result) -> None:
        """One row."""
        self._write(self._format.encode(self.columns.row_of(result)))

    def finish(self, **record: Any) -> None:
        """See `Sink`: a stream keeps no record."""

    def close(self) -> None:
        """It is the caller's."""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:  # who reads has enough
            raise
        except OSError as error:
            raise OutputError(f"cannot write to stdout: {error.strerror}") from error
