"""Files that appear under their name when they are whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file beside the path, which becomes it when the block ends without an error."""
    part = path.with_name(path.name + ".partial")
    yield part
    part.replace(path)
