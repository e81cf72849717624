"""Files that appear under their name when they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spai_runtime.files.locked import check_regular, open_locked, rename_locked


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A file beside the path, which becomes it when the block ends without an error, and else goes.

    Two processes that write the same path do so one after the other.

    :param sync: whether its content is on the disk before it has its name, which a power cut would else undo
    :raises OutputError: its name, `<path>.partial`, is that of a link, a folder, a pipe or a device
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
    """A folder whose files move into the directory `path` when the block ends without an error, and else go.

    Whoever reads the directory by the file `last`, which moves after all others, finds what it names. A directory that
    was not there is made, and goes again after an error.

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
