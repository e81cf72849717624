"""Saved rows: what an earlier run wrote with `--output`, with its record and the stamps of its images."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from spai_runtime.errors import SourceError
from spai_runtime.files.lines import Lines
from spai_runtime.files.outputs import OutputFiles
from spai_runtime.files.rows import FILE_FORMATS
from spai_runtime.files.sources import printable
from spai_runtime.files.stamps import Stamp, StampFile


class SavedRows:
    """The rows of a finished run, each with the stamp of its image's file; they can be iterated several times.

    A stamp is None if no stamp belongs to the row.

    :param path: ends in `.csv` or `.jsonl`
    :raises SourceError: the file cannot be read, or is not a complete file of rows
    """

    def __init__(self, path: Path) -> None:
        form = FILE_FORMATS.get(path.suffix.lower().removeprefix("."))
        if form is None:
            raise SourceError(f"{printable(path)} holds no rows: name the .csv or .jsonl that --output named")
        self.path, self._format, self._files = path, form, OutputFiles(path)
        try:
            self.names = self._names()
            self.record = self._record()
            self.count = sum(1 for _ in self)
        except OSError as error:
            raise SourceError(f"cannot read {printable(path)}: {error.strerror}") from error

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], Stamp | None]]:
        with ExitStack() as opened:
            file = opened.enter_context(self.path.open("rb"))
            lines = Lines(file)
            rows = self._format.decode(lines, self.names)
            next(rows, None)  # the header
            end, _ = lines.end, lines.taken()
            stamps = StampFile(opened.enter_context(self._stamps()), self.run)
            stamped = stamps.kept()
            for row in rows:
                end, (stamp, digest) = lines.end, next(stamped, (None, b""))
                yield row, stamp if stamps.fits(digest, lines.taken()) else None
            if file.seek(0, os.SEEK_END) != end:
                raise SourceError(f"{printable(self.path)} is no whole file of rows: it breaks off, or was edited")

    @property
    def run(self) -> Mapping[str, Any]:
        """What the rows depend on; {} if there is no record, or if it belongs to other rows."""
        run = self.record.get("run", {})
        return run if isinstance(run, dict) else {}

    def _names(self) -> list[str]:
        with self.path.open(encoding="utf-8", newline="") as file:
            try:
                first = file.readline() if self.path.suffix.lower() == ".jsonl" else next(csv.reader(file), [])
                names = list(json.loads(first)) if isinstance(first, str) else first
            except (ValueError, TypeError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
                raise SourceError(f"{printable(self.path)} is no file of rows") from error
        return names

    def _record(self) -> Mapping[str, Any]:
        try:
            record = json.loads(self._files.record.read_bytes())
            fits = record["run"]["columns"] == self.names
        except (FileNotFoundError, ValueError, RecursionError, TypeError, KeyError):
            return {}
        return record if fits else {}

    def _stamps(self) -> BinaryIO:
        try:
            return self._files.stamps.open("rb")
        except OSError:
            return BytesIO()
