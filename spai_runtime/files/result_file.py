"""Result files: they get their final name when they are complete, and a run that was interrupted can go on.

While a run goes on, `<output>.partial` holds the rows, `<output>.run.json.partial` the run that they belong to, and
`<output>.resume.partial` what each row was made from. An interrupted run leaves all three.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from spai_runtime.errors import OutputError
from spai_runtime.files.lines import Lines
from spai_runtime.files.locked import open_locked, open_regular, rename_locked
from spai_runtime.files.outputs import OutputFiles, partial
from spai_runtime.files.rows import Columns, format_of
from spai_runtime.files.sinks import Kept, Sink, forget
from spai_runtime.files.sources import Item
from spai_runtime.files.stamps import Stamp, StampFile
from spai_runtime.results import Result


class ResultFile(Sink):
    """Writes rows to a file that gets its name when the `with` block ends without an error.

    :param path: ends in `.csv` or `.jsonl`; `<path>.run.json`, the record of the run, and `<path>.resume` come beside
        it
    :param columns: the columns of the rows
    :param run: what the rows depend on (detectors, thresholds); rows of another run are never resumed
    :param resume: whether to go on after the rows that an earlier run of the same kind left or finished
    :raises OutputError: the file cannot be written, or another run is writing it
    """

    def __init__(self, path: Path, columns: Columns, run: Mapping[str, Any], *, resume: bool = False) -> None:
        self.columns, self._run = columns, {**run, "columns": columns.names}
        self._files, self._format, self._resume = OutputFiles(path), format_of(path), resume
        with ExitStack() as opened:
            try:
                self._files.check()
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = opened.enter_context(open_locked(partial(path)))
                stamps = opened.enter_context(open_regular(partial(self._files.stamps)))
                self._stamps = StampFile(stamps, self._run)
                self._write_record({})
                if not resume:
                    self._keep(0, 0)
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}") from error
            self._opened = opened.pop_all()
        self.replaces = path.exists()

    def skip(self, items: Iterator[Item], kept: Kept = forget) -> tuple[Iterator[Item], Counter[str]]:
        """Keep the rows of an earlier run as far as they agree with the items, beginning with the first.

        All rows from the first one that does not agree are cut off: a file was added, removed or changed, or the run
        was killed within a row. Rows without stamps never agree.

        :returns: the items still to do, and for each label (or `error`) how many rows were kept
        :raises OutputError: the file cannot be written
        """
        if not self._resume:
            return items, Counter()
        try:
            if not _size(self._stamps.file):
                _copy(self._files.stamps, self._stamps.file)  # of a run that was killed while its files got their names
            left, labels = self._keep_agreeing(items, kept)
            if not labels and _copy(self._files.rows, self._file):
                _copy(self._files.stamps, self._stamps.file)
                whole = _size(self._file)
                left, labels = self._keep_agreeing(left, kept)
                self.replaces = self._file.tell() < whole
        except OSError as error:
            raise OutputError(f"cannot write {partial(self._files.rows)}: {error.strerror}") from error
        return left, labels

    def write(self, result: Result) -> None:
        """Write one row and hand it to the system at once, so that a killed process loses none."""
        row = self._format.encode(self.columns.row_of(result)).encode()
        try:
            self._stamps.write(result.stamp, row)  # first, so that every row has one whenever the process is killed
            self._file.write(row)
            self._file.flush()
        except OSError as error:
            where = partial(self._files.rows)
            raise OutputError(f"cannot write {where}: {error.strerror}; --resume goes on from here") from error

    def finish(self, **record: Any) -> None:
        """See `Sink`. The files get their names, the rows last, since their lock keeps other runs away until then."""
        files = self._files
        try:
            for file in (self._file, self._stamps.file):
                file.flush()
                os.fsync(file.fileno())
            self._stamps.file.close()
            self._write_record(record)
            for path in (files.record, files.stamps):
                partial(path).replace(path)
            rename_locked(self._file, partial(files.rows), files.rows)
        except OSError as error:
            raise OutputError(f"cannot finish {files.rows}: {error.strerror}") from error

    def close(self) -> None:
        """Close the files; an interrupted run ends here too."""
        with suppress(OSError):  # on a full disk it would fail again, and hide the error that says so
            self._opened.close()

    def _keep_agreeing(self, items: Iterator[Item], kept: Kept) -> tuple[Iterator[Item], Counter[str]]:
        """Keep the rows and stamps in the partial files that agree; see `skip`."""
        self._file.seek(0)
        lines, stamps = Lines(self._file), self._stamps.kept()
        rows = self._format.decode(lines, self.columns.names)
        labels, end = Counter[str](), 0
        if next(rows, None) is not None and lines.whole:
            end, _ = lines.end, lines.taken()  # the header
            for row in rows:
                if (item := next(items, None)) is None:
                    break
                if not self._agrees(row, lines.taken(), next(stamps, None), item):
                    items = chain((item,), items)
                    break
                end = lines.end
                labels[self.columns.label_in(row)] += 1
                kept(row, item)
        self._keep(end, labels.total())
        return items, labels

    def _agrees(self, row: Mapping[str, Any], written: bytes, stamped: tuple[Stamp, bytes] | None, item: Item) -> bool:
        """Whether a row belongs to the item, and the item's image has not changed since."""
        if stamped is None or not self._stamps.fits(stamped[1], written):
            return False
        return self.columns.is_row_of(row, item) and stamped[0] == Stamp.of(item.path)

    def _keep(self, end: int, rows: int) -> None:
        """Keep this many bytes, which are this many rows, and cut off the rest."""
        self._file.seek(end)
        self._file.truncate()
        self._stamps.cut(rows)
        if end == 0:
            self._file.write(self._format.header(self.columns.names).encode())

    def _write_record(self, counts: Mapping[str, Any]) -> None:
        path = partial(self._files.record)
        path.unlink(missing_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"run": self._run, **counts}, indent=2) + "\n")


def _copy(source: Path, target: BinaryIO) -> bool:
    """Copy a file. :returns: whether there was one"""
    try:
        with source.open("rb") as file:
            target.seek(0)
            target.truncate()
            shutil.copyfileobj(file, target)
    except FileNotFoundError:
        return False
    target.flush()
    return True


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
