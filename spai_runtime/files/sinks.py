"""Sinks: the places that results go to; a stream can be one."""

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
    """Do nothing with a row that an earlier run has left."""


class Sink(Closing, Protocol):
    """A place that rows go to. Use it in a `with`.

    :param replaces: whether there is a finished file whose rows are lost when all rows of this run are written
    """

    columns: Columns
    replaces: bool = False

    def skip(self, items: Iterator[Item], kept: Kept = forget) -> tuple[Iterator[Item], Counter[str]]:
        """Skip the items that an earlier run has done.

        :param kept: called for each row that an earlier run has left
        :returns: the items still to do, and for each label (or `error`) how many rows an earlier run has left
        """

    def write(self, result: Result) -> None:
        """Write one row and hand it to the system at once, so that a killed process loses none."""

    def finish(self, **record: Any) -> None:
        """Finish after all rows. :param record: what the record of the run says beside what its rows depend on"""


class Stream(Sink):
    """A sink that writes rows to a stream as they come."""

    def __init__(self, stream: IO[str], form: Format, columns: Columns) -> None:
        self._stream, self._format, self.columns = stream, form, columns
        self._write(form.header(columns.names))

    def skip(self, items: Iterator[Item], kept: Kept = forget) -> tuple[Iterator[Item], Counter[str]]:  # noqa: ARG002
        """See `ResultFile`. A stream has no rows of an earlier run, so nothing is skipped."""
        return items, Counter()

    def write(self, result: Result) -> None:
        """Write one row."""
        self._write(self._format.encode(self.columns.row_of(result)))

    def finish(self, **record: Any) -> None:
        """See `Sink`. A stream keeps no record."""

    def close(self) -> None:
        """Leave the stream open, since it belongs to the caller."""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:  # who reads has enough
            raise
        except OSError as error:
            raise OutputError(f"cannot write to stdout: {error.strerror}") from error
