"""Tables of labelled images: SPAI's `image,class,split[,source]` and GRIP's `filename,typ`, read and written as CSV."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spai_runtime.errors import UserError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.sources import IMAGE_COLUMNS, opened, printable

REAL, GENERATED = 0, 1
COLUMNS = ("image", "class", "split", "source")
_CLASSES = {"0": REAL, "1": GENERATED}


class TableError(UserError):
    """A table that cannot be used, and why, in one sentence."""


@dataclass(frozen=True)
class Row:
    """One labelled image.

    :param name: the name in the table, which is the key of the image in a store
    :param path: the file's path, where images are files: the table's folder or the given root, then the name
    :param label: 0 real, 1 AI-generated
    :param split: "" where the table has none
    :param source: a camera, a data set or a generator: the column `source`, else GRIP's `typ`, else the table's name
    """

    name: str
    path: Path
    label: int
    split: str
    source: str


def read_table(path: Path, split: str | None = None, root: Path | None = None) -> list[Row]:
    """:param split: keeps the rows of this split; a table without the column `split` is kept whole
    :param root: the folder that names are relative to; None takes the table's folder
    :raises TableError: it is unreadable or lacks its columns, a class is not 0 or 1, or no row is in the split
    """
    with opened(path, TableError) as file:
        lines = csv.DictReader(file, restval="")
        names = lines.fieldnames or []
        image, kind = _columns(path, names)
        rows = [_row(path, lines.line_num, cells, image, kind, root) for cells in lines]
    if not rows:
        raise TableError(f"{printable(path)} has no row below its header")
    if split is None or "split" not in names:
        return rows
    kept = [row for row in rows if row.split == split]
    if not kept:
        found = ", ".join(printable(name or "none") for name in sorted({row.split for row in rows}))
        raise TableError(f"{printable(path)} has no row in the split {split}; it has: {found}")
    return kept


def read_tables(paths: Iterable[Path], split: str | None = None, root: Path | None = None) -> list[Row]:
    """The rows of all tables, one table after the other."""
    return [row for path in paths for row in read_table(path, split, root)]


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Writes a table of COLUMNS; the file appears under its name when it is whole."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((row.name, row.label, row.split, row.source) for row in rows)


def check_classes(rows: Sequence[Row], what: str) -> None:
    """:param what: names the rows in the error, e.g. `the split train`
    :raises TableError: only one of the two classes is there
    """
    labels = {row.label for row in rows}
    if len(labels) < 2:
        only = "AI-generated" if GENERATED in labels else "real"
        raise TableError(f"{what} holds {only} images alone; training needs both classes")


def counts(rows: Iterable[Row]) -> dict[tuple[str, int], Counter[str]]:
    """How many images each split has, by (source, label)."""
    table: dict[tuple[str, int], Counter[str]] = {}
    for row in rows:
        table.setdefault((row.source, row.label), Counter())[row.split] += 1
    return table


def _columns(path: Path, names: Sequence[str]) -> tuple[str, str]:
    """The columns of the image and of its class."""
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    kind = next((name for name in ("class", "typ") if name in names), None)
    if image is None or kind is None:
        wanted = "image (or filename)" if image is None else "class (or typ)"
        has = ", ".join(map(printable, names)) or "none"
        raise TableError(f"{printable(path)} has no column {wanted}; it has: {has}")
    return image, kind


def _row(path: Path, line: int, cells: dict[str, str], image: str, kind: str, root: Path | None) -> Row:
    name, value = cells[image], cells[kind]
    if not name:
        raise TableError(f"{printable(path)}, line {line}: the column {image} is empty")
    label = _CLASSES.get(value) if kind == "class" else int(value != "real")
    if label is None or not value:
        expected = "0 (real) or 1 (AI-generated)" if kind == "class" else "real or a generator"
        raise TableError(f"{printable(path)}, line {line}: {kind} is {value!r} where {expected} was expected")
    source = cells.get("source") or (value if kind == "typ" else path.stem)
    return Row(name, (root or path.parent) / name, label, cells.get("split", ""), source)
