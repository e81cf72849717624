"""Files that get their name only when they are complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spai_runtime.files.locked import check_regular, open_locked, rename_locked


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Give a file beside the path; it replaces the path if the block ends without an error, and is deleted otherwise.

    Two processes that write the same path do so one after the other.

    :param sync: whether to put its content on the disk before it gets its name; else a power cut could lose the content
    :raises OutputError: there is a link, a folder, a pipe or a device with its name, `<path>.partial`
    """
    part = path.with_name(path.name + ".partial")
    with open_locked(part, wait=True) as held:
        try:
            held.truncate(0)  # what a process that was killed has left
            yield part
            if sync:
                _sync(part)
            check_regular(part)
            rename_locked(held, part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_directory(path: Path, last: str) -> Iterator[Path]:
    """Give a folder; its files move into the directory `path` if the block ends without an error, or are deleted.

    The file `last` moves after all others, so whoever reads the directory by it finds all that it names. A directory
    that does not exist is made, and is removed again after an error.

    :raises OSError: the directory cannot be written
    """
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path) as folder:
            yield Path(folder)
            for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == last):
                part.replace(path / part.name)
    except BaseException:
        if new:
            with suppress(OSError):
                path.rmdir()
        raise
