"""Entries: what a report says of one image, and many of them, kept on the disk until a page is written."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    :param number: its place in the run, from 1
    :param name: its path, as the row has it
    :param verdicts: of each detector
    :param together: what its label is decided by
    :param own: cells of the CSV that named it
    :param error: why there is no score, or no score of one of the detectors
    :param thumbnail: None where there is none, and `missing` then says why
    :param heats: of each detector; () of rows whose attention is not known any more
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
        """Of a row, as it was made or as it was read back; without pictures.

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
        """The last part of its path; `folder` is what stands before."""
        return self.name.rpartition("/")[2] or self.name

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """As a run counts it: `error` where anything is wrong."""
        return ERROR if self.error else self.together.label

    @property
    def kind(self) -> str:
        """Which of three kinds of labels it has: `real`, `error`, or `flagged`."""
        return self.label if self.label in (REAL, ERROR) else "flagged"

    @property
    def disagree(self) -> bool:
        """Whether detectors give it different labels."""
        return len({verdict.label for verdict in self.verdicts if verdict.label}) > 1

    @property
    def turned(self) -> bool:
        """Whether it is shown with width and height exchanged."""
        return self.thumbnail is not None and self.thumbnail.orientation >= 5


class Spool(Closing):
    """Entries on the disk, in an unnamed file that goes with the process.

    :param folder: where there is room for it
    :raises OSError: it cannot be made there
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`
        self.count = 0

    def write(self, entry: Entry) -> None:
        """:raises OSError: there is no room"""
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self.count += 1

    def read(self, numbers: Collection[int]) -> Iterator[Entry]:
        """The entries whose place in the run is one of these."""
        self._file.seek(0)
        decoder = msgspec.json.Decoder(Entry)
        for place, line in enumerate(self._file, 1):
            if place in numbers:
                yield decoder.decode(line)

    def close(self) -> None:
        """Frees the disk."""
        self._file.close()
