"""Stamps: what each row of a result file was made from, so that a resumed run drops the rows of changed images."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

_RECORD = struct.Struct("<qQ16s")  # of one row: the image's size, when it was modified, and a digest of the row
_64_BITS = (1 << 64) - 1  # years beyond 2554 would not fit


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file is still the same one.

    :param size: in bytes; −1 if there is no file
    :param modified: when it was last written, in nanoseconds since 1970
    """

    size: int = -1
    modified: int = 0

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Stamp":
        """The stamp of a file as it is now."""
        try:
            status = os.stat(path)  # noqa: PTH116  for every image of a run
        except (OSError, ValueError):  # a name with a zero byte in it
            return NO_FILE
        return cls(status.st_size, status.st_mtime_ns & _64_BITS)


NO_FILE = Stamp()


class StampFile:
    """The stamps of the rows of a result file, in their order, each with a digest of its row.

    The digest covers what the rows depend on too, so a stamp never fits the rows of another run.

    :param file: opened for reading and writing
    :param run: what the rows depend on
    """

    def __init__(self, file: BinaryIO, run: Mapping[str, Any]) -> None:
        self.file = file
        self._key = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).digest()

    def write(self, stamp: Stamp, row: bytes) -> None:
        """Write the stamp of the next row, and hand it to the system at once.

        :raises OSError: it cannot be written
        """
        self.file.write(_RECORD.pack(stamp.size, stamp.modified, self._digest(row)))
        self.file.flush()

    def kept(self) -> Iterator[tuple[Stamp, bytes]]:
        """Read the stamps from the first on, each with the digest that its row must have; stop at an incomplete one."""
        self.file.seek(0)
        while len(record := self.file.read(_RECORD.size)) == _RECORD.size:
            size, modified, digest = _RECORD.unpack(record)
            yield Stamp(size, modified), digest

    def fits(self, digest: bytes, row: bytes) -> bool:
        """Whether a stamp's digest belongs to this row, and to this run."""
        return digest == self._digest(row)

    def cut(self, rows: int) -> None:
        """Keep the stamps of the first rows, and go on after them."""
        self.file.seek(rows * _RECORD.size)
        self.file.truncate()

    def _digest(self, row: bytes) -> bytes:
        return hashlib.blake2b(row, digest_size=16, key=self._key).digest()
