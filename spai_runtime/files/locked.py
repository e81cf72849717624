"""Regular files that one process writes at a time; a link, a pipe or a device is refused."""

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO, cast

from spai_runtime.errors import OutputError
from spai_runtime.files.sources import printable

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FAR = 1 << 62  # Windows locks bytes, which nobody else can read then: one that no file has

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, *, wait: bool) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int, *, wait: bool) -> None:
        """Lock a file. :raises BlockingIOError: another process holds it"""
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read and to write, with its content; it is made if it does not exist.

    :raises OutputError: there is something else than a file
    :raises OSError: it cannot be opened
    """
    check_regular(path)  # to open a device may do something already
    descriptor = os.open(path, _FLAGS, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # put there meanwhile
        os.close(descriptor)
        raise _irregular(path)
    return cast("BinaryIO", os.fdopen(descriptor, "r+b"))


def open_locked(path: Path, *, wait: bool = False) -> BinaryIO:
    """Open a file as `open_regular` does, and lock it until it is closed; some file systems have no locks.

    :param wait: whether to wait for another process that holds it; otherwise that is an error
    :raises OutputError: another process holds it, or it is no regular file
    :raises OSError: it cannot be opened
    """
    while True:
        file = open_regular(path)
        try:
            _try_lock(path, file, wait)
            if _has_name(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # who held it has given it another name, and this name is free


def rename_locked(file: BinaryIO, path: Path, target: Path) -> None:
    """Give a file that is locked another name, and then release it."""
    if sys.platform == "win32":  # which renames no open file
        file.close()
    path.replace(target)
    file.close()


def check_regular(path: Path) -> None:
    """Check that a file can be written there. :raises OutputError: there is something that is not a regular file"""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise _irregular(path)


def _irregular(path: Path) -> OutputError:
    there = "a link, a folder, a pipe or a device is there"
    return OutputError(f"cannot write {printable(path)}: {there}; remove it or name another output")


def _try_lock(path: Path, file: BinaryIO, wait: bool) -> None:
    try:
        _lock(file.fileno(), wait=wait)
    except BlockingIOError as error:
        raise OutputError(
            f"another run is writing {printable(path)}: wait until it has ended, or name another --output"
        ) from error
    except OSError:
        pass  # a file system without locks


def _has_name(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
