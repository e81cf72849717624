"""Regular files: what would block (a pipe) or holds nothing is refused before it is read."""

import stat
from pathlib import Path

from spai_runtime.errors import ImageError


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; what would block (a pipe) is refused.

    :raises ImageError: not there, not readable, not a file, or empty
    """
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def regular(path: Path) -> Path:
    """The path of a file that has content and that reading does not wait for.

    :raises ImageError: not there, not a file, or empty
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty")
    return path
