"""Sinks: results → a stream, or a file that has its final name only when it is complete.

While a run goes on, rows are in `<output>.partial` and what run they belong to in `<output>.run.json.partial`;
an interrupted run leaves both, and a resumed one goes on where they end.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from spai_runtime.closing import Closing
from spai_runtime.errors import OutputError
from spai_runtime.files.rows import Columns, Format, format_of
from spai_runtime.files.sources import Item
from spai_runtime.results import Result


class Sink(Closing, Protocol):
    """Where rows go. Use it in a `with`."""

    columns: Columns

    def skip(self, items: Iterator[Item]) -> tuple[Iterator[Item], Counter[str]]:
        """:returns: the items still to do, and how many rows of which label (or `error`) an earlier run has left"""

    def write(self, result: Result) -> None:
        """One row, handed to the system at once: a killed process loses none."""

    def finish(self, **record: Any) -> None:
        """All rows are written. :param record: what the record of the run says beside what its rows depend on"""


class Stream(Sink):
    """Rows to a stream, as they come."""

    def __init__(self, stream: IO[str], form: Format, columns: Columns) -> None:
        self._stream, self._format, self.columns = stream, form, columns
        self._write(form.header(columns.names))

    def skip(self, items: Iterator[Item]) -> tuple[Iterator[Item], Counter[str]]:
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


class ResultFile(Sink):
    """Rows to a file that appears under its name when the `with` block ends without an error.

    :param path: `.csv` or `.jsonl`; beside it comes `<path>.run.json`, the record of the run
    :param columns: of the rows
    :param run: what the rows depend on (detectors, thresholds); rows of another run are never resumed
    :param resume: whether to go on with what an earlier run of the same kind has left or finished
    :raises OutputError: the file cannot be written
    """

    def __init__(self, path: Path, columns: Columns, run: Mapping[str, Any], *, resume: bool = False) -> None:
        self._path, self.columns, self._run = path, columns, {**run, "columns": columns.names}
        self._format = format_of(path)
        self._partial, self._record = Path(f"{path}.partial"), Path(f"{path}.run.json")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.resumes = resume and self._recover()
            self._file: BinaryIO = self._partial.open("r+b" if self.resumes else "w+b")
            self._write_record(Path(f"{self._record}.partial"), {})  # once no rows of another run are left
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        if not self.resumes:
            self._file.write(self._format.header(columns.names).encode())

    def skip(self, items: Iterator[Item]) -> tuple[Iterator[Item], Counter[str]]:
        """Keeps the rows of an earlier run as far as they agree with the items, from the first on.

        Rows after one that does not agree (a file was added, or the run was killed within a row) are cut off.

        :returns: the items still to do, and how many rows of which label (or `error`) were kept
        """
        labels = Counter[str]()
        if not self.resumes:
            return items, labels
        end, left = 0, items
        lines = _Lines(self._file)
        for kept, row in enumerate(self._format.decode(lines, self.columns.names)):
            if not lines.whole:
                break
            item = next(left, None) if kept else None
            if kept and (item is None or not self.columns.is_row_of(row, item)):
                left = left if item is None else chain((item,), left)
                break
            end = lines.end
            labels.update([self.columns.label_in(row)] if kept else [])
        self._file.seek(end)
        self._file.truncate()
        if end == 0:
            self._file.write(self._format.header(self.columns.names).encode())
        return left, labels

    def write(self, result: Result) -> None:
        """One row, handed to the system at once: a killed process loses none."""
        try:
            self._file.write(self._format.encode(self.columns.row_of(result)).encode())
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._partial}: {error.strerror}; --resume goes on from here") from error

    def finish(self, **record: Any) -> None:
        """See `Sink`: gives the file its name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._write_record(Path(f"{self._record}.partial"), record)
            self._partial.replace(self._path)
            Path(f"{self._record}.partial").replace(self._record)
        except OSError as error:
            raise OutputError(f"cannot finish {self._path}: {error.strerror}") from error

    def _recover(self) -> bool:
        """Whether rows of the same run lie in `.partial`; those of a finished one are copied there."""
        if _read_record(Path(f"{self._record}.partial")) == self._run and self._partial.is_file():
            return True
        if _read_record(self._record) == self._run and self._path.is_file():
            Path(f"{self._record}.partial").unlink(missing_ok=True)
            shutil.copyfile(self._path, self._partial)
            return True
        return False

    def _write_record(self, path: Path, counts: Mapping[str, Any]) -> None:
        path.write_text(json.dumps({"run": self._run, **counts}, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Ends an interrupted run, too."""
        with suppress(OSError):  # on a full disk it would fail again, and hide the error that says so
            self._file.close()


class _Lines:
    """Lines of a binary file as text, with where the last one ended and whether it ended in a newline.

    They end before one that is not UTF-8, which this package has not written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.end, self.whole = file, 0, True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = ""
        if not text:
            raise StopIteration
        self.end += len(line)
        self.whole = line.endswith(b"\n")
        return text


def _read_record(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("run")
    except (OSError, ValueError, AttributeError):
        return None
