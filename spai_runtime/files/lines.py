"""Lines of a file while they are read, with the bytes that each row took."""

from collections.abc import Iterator
from typing import BinaryIO


class Lines:
    """The lines of a binary file as text; it knows where the last line ended, and whether it ended in a newline.

    The lines stop before the first one that is not UTF-8, which this package has not written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._taken, self.end, self.whole = file, bytearray(), 0, True

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
        self._taken += line
        self.end += len(line)
        self.whole = line.endswith(b"\n")
        return text

    def taken(self) -> bytes:
        """The lines that were read since the last call."""
        taken = bytes(self._taken)
        self._taken.clear()
        return taken
