"""Sources turn what INPUT names into items to score, in a fixed order, and find them as they are needed.

Only the names in one folder are held, so a tree of millions costs no memory; whoever needs a count iterates twice.
"""

import csv
import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from spai_runtime.errors import SourceError, UserError
from spai_runtime.images import EXTENSIONS

IMAGE_COLUMNS = ("image", "filename")  # SPAI's CSVs, GRIP's CSVs


@dataclass(frozen=True)
class Item:
    """One image to score.

    :param path: the path that is opened
    :param name: the text in the result's `path` column: as the user would write it, always encodable as UTF-8
    :param columns: the cells that a CSV input has for it in its own columns
    """

    path: Path
    name: str
    columns: dict[str, str] = field(default_factory=dict)


class Sources:
    """The items of all inputs, in the order of the inputs; the items of a folder are in order of their names.

    :param inputs: files, folders, globs, `.csv` and `.txt` lists
    :param split: keeps only the rows of a CSV whose `split` column has this value
    :raises SourceError: an input names nothing, or a list cannot be read
    """

    def __init__(self, inputs: Sequence[str], split: str | None = None) -> None:
        self._split = split
        self._paths = [path for name in inputs for path in _expand(name)]
        tables = [_header(path) for path in self._paths if _is_table(path)]
        if split is not None and not any("split" in columns for columns in tables):
            raise SourceError("--split needs a CSV input with a `split` column")
        self.columns = list(dict.fromkeys(itertools.chain.from_iterable(tables)))  # own columns, each once

    def __iter__(self) -> Iterator[Item]:
        for path in self._paths:
            if _is_table(path):
                yield from _rows(path, self._split)
            elif path.suffix.lower() == ".txt" and path.is_file():
                yield from _lines(path)
            elif path.is_dir():
                yield from _walk(path)
            else:
                yield _item(path)

    def files(self) -> Iterator[Path]:
        """Give every file that is read: the lists and the items."""
        yield from self._paths
        yield from (item.path for item in self)

    def count(self) -> int:
        """The number of items that there are now.

        :raises SourceError: there are none
        """
        count = sum(1 for _ in self)
        if not count:
            kept = f" in the split {self._split}" if self._split else ""
            raise SourceError(f"no images{kept} in {', '.join(map(printable, self._paths))}")
        return count


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that UTF-8 can hold: bytes of a name that are not UTF-8 become `\\udcXX` escapes."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _expand(name: str) -> list[Path]:
    if os.path.lexists(name):
        return [Path(name)]
    try:
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  a pattern may start anywhere
    except RecursionError as error:
        raise SourceError(
            f"folders are too deep for {printable(name)}: name the uppermost without a pattern"
        ) from error
    if not found:
        raise SourceError(f"there is no file, folder or match for {printable(name)}")
    paths = list(map(Path, found))
    folders = {path for path in paths if path.is_dir()}
    apart = [path for path in paths if folders.isdisjoint(path.parents)]  # `**` matches a folder and what is in it
    return [path for path in apart if path in folders or _is_meant(path, name)]


def _is_meant(path: Path, pattern: str) -> bool:
    """Whether it is an image, or the pattern spells out its suffix: `photos/*` does not mean notes.txt in it."""
    return path.suffix.lower() in EXTENSIONS or (path.suffix != "" and pattern.endswith(path.suffix))


def _item(path: Path) -> Item:
    return Item(path, printable(path))


def _walk(top: Path) -> Iterator[Item]:
    """Give the images below a folder and follow links, but walk each folder only once. However deep the tree is, each
    folder on the way down costs the names in it and no more."""
    visited = set[tuple[int, int]]()
    levels: list[Iterator[tuple[Path, bool]]] = [iter([(top, True)])]
    while levels:
        for path, is_folder in levels[-1]:
            if not is_folder:
                yield _item(path)
                continue
            try:
                levels.append(_entries(path, visited))
            except OSError:
                yield _item(path)  # its row will say why
                continue
            break
        else:
            levels.pop()


def _entries(folder: Path, visited: set[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    """The folders and images in a folder, in order of their names, with which are folders; none on a second visit.

    :raises OSError: the folder cannot be entered, for example because its path is too long for the system
    """
    status = folder.stat()
    if (status.st_dev, status.st_ino) in visited:
        return iter(())
    visited.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        found = sorted((entry.name, _is_folder(entry)) for entry in entries)
    return ((folder / name, is_folder) for name, is_folder in found if is_folder or _is_named_image(name))


def _is_named_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  faster than a Path a file


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder. A link in a loop counts as a file: its row will say what is wrong."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and path.is_file()


def _header(path: Path) -> list[str]:
    """The header of a CSV. :raises SourceError: no column names an image"""
    with opened(path) as file:
        columns = [printable(name) for name in next(csv.reader(file), [])]
    if not any(name in columns for name in IMAGE_COLUMNS):
        raise SourceError(f"{path} has no column {' or '.join(IMAGE_COLUMNS)}; it has: {', '.join(columns) or 'none'}")
    return columns


def _rows(path: Path, split: str | None) -> Iterator[Item]:
    columns = _header(path)
    image = next(name for name in IMAGE_COLUMNS if name in columns)
    with opened(path) as file:
        for row in csv.DictReader(file, restval=""):
            row.pop(None, None)  # cells past the header
            if split is None or row.get("split") == split:
                target = path.parent / row[image]
                yield Item(target, printable(target), {printable(name): printable(row[name]) for name in row})


def _lines(path: Path) -> Iterator[Item]:
    with opened(path) as file:
        for line in file:
            if name := line.rstrip("\r\n"):
                yield _item(path.parent / name)


@contextmanager
def opened(path: Path, failure: type[UserError] = SourceError) -> Iterator[TextIO]:
    """Open a list file as text. :raises UserError: an error of the class `failure` if it cannot be read as text"""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except OSError as error:
        raise failure(f"cannot read {printable(path)}: {error.strerror}") from error
    except csv.Error as error:
        raise failure(f"{printable(path)} is not a CSV: {error}") from error
