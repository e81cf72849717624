"""Entries: what a report says of one image; many of them are kept on the disk until a page is written."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

from spai_runtime.closing import Closing
from spai_runtime.report.heat import Heat
from spai_runtime.report.roles import ERROR, REAL, Roles, Verdict, number
from spai_runtime.report.thumbnail import Thumbnail
from spai_runtime.text import excerpt

OWN_COLUMNS = 20  # of a CSV input that a page shows of each image


@dataclass(frozen=True)
class Entry:
    """One image of a report.

    :param number: its place in the run, counted from 1
    :param name: its path, as in the row
    :param verdicts: the verdict of each detector
    :param together: the verdict that decides its label
    :param own: the cells of the CSV that named it
    :param error: the reason why there is no score, or why one of the detectors has no score
    :param thumbnail: None if there is none; then `missing` says why
    :param heats: the heat map of each detector; () for rows whose attention is not known any more
    """

    number: int
    name: str
    verdicts: Sequence[Verdict]
    together: Verdict
    own: Mapping[str, str]
    error: str = ""
    width: int | None = None
    height: int | None = None
    views: int | None = None
    thumbnail: Thumbnail | None = None
    missing: str = ""
    heats: Sequence[Heat | None] = ()

    @classmethod
    def of(cls, number_: int, row: Mapping[str, Any], roles: Roles) -> Self:
        """The entry of a row of this run or of an earlier one, without pictures.

        :raises SourceError: it is not a row that spai-run has written
        """
        width, height, views = (number(row.get(name)) for name in ("width", "height", "views"))
        return cls(
            number=number_,
            name=excerpt(str(row["path"])),
            verdicts=roles.verdicts(row),
            together=roles.together(row),
            own={excerpt(name): excerpt(str(row[name] or "")) for name in roles.own[:OWN_COLUMNS]},
            error=excerpt(str(row["error"] or "")),
            width=None if width is None else int(width),
            height=None if height is None else int(height),
            views=None if views is None else int(views),
        )

    @property
    def file(self) -> str:
        """The last part of its path; `folder` is the part before it."""
        return self.name.rpartition("/")[2] or self.name

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """The label that a run counts it as: `error` if anything is wrong with it."""
        return ERROR if self.error else self.together.label

    @property
    def kind(self) -> str:
        """The kind of its label: `real`, `error`, or `flagged` for any other."""
        return self.label if self.label in (REAL, ERROR) else "flagged"

    @property
    def disagree(self) -> bool:
        """Whether detectors give it different labels."""
        return len({verdict.label for verdict in self.verdicts if verdict.label}) > 1


class Spool(Closing):
    """Entries on the disk, in an unnamed file that is deleted when the process ends.

    :param folder: a folder with room for the file
    :param page: how many entries are read at a time
    :raises OSError: the file cannot be made there
    """

    def __init__(self, folder: Path, page: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`
        self._page, self._starts, self._count = page, list[int](), 0

    def write(self, entry: Entry) -> None:
        """Write an entry. :raises OSError: there is no room"""
        if self._count % self._page == 0:
            self._starts.append(self._file.tell())
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self._count += 1

    def read(self, page: int) -> Iterator[Entry]:
        """Read the entries of a page. :param page: its number, counted from 0"""
        decoder = msgspec.json.Decoder(Entry)
        self._file.seek(self._starts[page] if self._starts else 0)
        for line in islice(self._file, self._page):
            yield decoder.decode(line)

    def close(self) -> None:
        """Free the space on the disk."""
        self._file.close()
