"""Files of the user's cache that decide what runs: each in a folder that nobody else may enter."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.cache import cached

_FILE = "content"
_PRIVATE = 0o700


class PrivateFile:
    """What was made once and is read from nowhere that another user could have written to.

    :param folder: that is the user's alone, made if it is not there; None keeps nothing
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of(cls, kind: str, *belongs_to: str) -> Self:
        """In the user's cache, if there is one: what is of a kind and belongs to all of these."""
        try:
            return cls(cached(kind, *belongs_to))
        except RuntimeError:  # no home folder
            return cls(None)

    def read(self) -> bytes:
        """What was kept; nothing if nothing was.

        :raises OSError: it cannot be read, or others could have written it
        """
        if self.folder is None:
            return b""
        try:
            _check_private(self.folder)
            content = (self.folder / _FILE).read_bytes()
        except FileNotFoundError:
            return b""
        with suppress(OSError):
            os.utime(self.folder)
        return content

    def write(self, content: bytes, most: int | None = None) -> None:
        """:param most: of its kind that are kept; those that were used longest ago go. None keeps all
        :raises OSError: it cannot be written, or others could write there
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        _check_private(self.folder)
        with atomic_write(self.folder / _FILE) as part:
            part.write_bytes(content)
        if most is not None:
            _forget(self.folder, most)


def _forget(folder: Path, most: int) -> None:
    """Removes what was used longest ago beside this folder, and never itself."""
    others = [other for other in folder.parent.iterdir() if other != folder]
    others.sort(key=lambda other: other.lstat().st_mtime, reverse=True)
    for other in others[most - 1 :]:
        shutil.rmtree(other, ignore_errors=True)


def _check_private(folder: Path) -> None:
    """:raises OSError: it is a link, another user's, or others may look or write into it"""
    found = folder.lstat()
    if not hasattr(os, "getuid"):  # Windows keeps users apart by the folder that it lies in
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"it should be a folder of your own that nobody else may enter (chmod 700 {folder})")
