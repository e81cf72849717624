"""Regular files: what would block (a pipe) or holds nothing is refused before it is read."""

from pathlib import Path

from spai_runtime.errors import ImageError
from spai_runtime.images.opening import size_of_regular

LARGEST = 2 << 30  # bytes; the largest image that is decoded takes 1.4 GB uncompressed, with 16 bits and alpha


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; what would block (a pipe) is refused.

    :raises ImageError: it is not there, not readable, not a file, empty, or larger than LARGEST
    """
    if size_of(path) > LARGEST:
        raise ImageError(f"a file of more than {LARGEST >> 30} GiB, which is no image that could be decoded")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def size_of(path: Path) -> int:
    """The size in bytes of a file that has content and that can be read without waiting.

    :raises ImageError: it is not there, not a file, or empty
    """
    try:
        return size_of_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
