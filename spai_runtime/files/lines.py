"""Lines of a file as they are read, and the bytes that each row of them took."""

from collections.abc import Iterator
from typing import BinaryIO


class Lines:
    """Lines of a binary file as text, with where the last one ended and whether it ended in a newline.

    They end before one that is not UTF-8, which this package has not written.
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
        """The lines since this was called last."""
        taken = bytes(self._taken)
        self._taken.clear()
        return taken
