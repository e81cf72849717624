"""Files that appear under their name when they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A file beside the path, which becomes it when the block ends without an error, and else goes.

    :param sync: whether its content is on the disk before it has its name, which a power cut would else undo
    """
    part = path.with_name(path.name + ".partial")
    try:
        yield part
        if sync:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


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
