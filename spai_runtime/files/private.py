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
    """A file that was made once, and is only read if no other user could have written it.

    :param folder: a folder of the user's alone, made if it does not exist; None keeps nothing
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of(cls, kind: str, *belongs_to: str) -> Self:
        """The file in the user's cache, if there is one, for something of one kind that belongs to all these texts."""
        try:
            return cls(cached(kind, *belongs_to))
        except RuntimeError:  # no home folder
            return cls(None)

    def read(self) -> bytes:
        """Read what was kept; it is empty if nothing was.

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
        """Write what to keep.

        :param most: how many files of its kind to keep; those that were used longest ago are removed. None keeps all
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
    """Remove the folders beside this one that were used longest ago, and never this one."""
    others = [other for other in folder.parent.iterdir() if other != folder]
    others.sort(key=lambda other: other.lstat().st_mtime, reverse=True)
    for other in others[most - 1 :]:
        shutil.rmtree(other, ignore_errors=True)


def _check_private(folder: Path) -> None:
    """Check a folder. :raises OSError: it is a link, another user's, or others may look or write into it"""
    found = folder.lstat()
    if not hasattr(os, "getuid"):  # Windows keeps users apart by the folder that it lies in
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"it should be a folder of your own that nobody else may enter (chmod 700 {folder})")
