"""The labelled rows of a training: read, checked, and all their files there, before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from spai_runtime.files.sources import printable
from spai_train.data.stores import Store, StoreError, open_store
from spai_train.data.table import GENERATED, Row, TableError, check_classes, read_tables


@dataclass(frozen=True)
class DataSettings:
    """The keys that say where images come from.

    :param tables: These CSVs have the columns image, class and split.
    :param validation: These CSVs hold the validation images; without one, they are the rows of `tables` in
        `validation_split`.
    :param tests: Each epoch is measured on these CSVs too, and nothing is chosen by them.
    :param root: Paths are relative to this folder; null is each CSV's own.
    :param store: Images are read from this `.lmdb`, `.tar` or folder of them; null reads files.
    :param train_split: Rows of this split are learned from.
    :param validation_split: Rows of this split are validated on.
    :param test_split: Rows of this split are read from `tests`.
    :param workers: So many processes read and augment, at most one a core; 0 does so in the training process.
    :param prefetch: Each of these processes keeps so many micro-batches ready.
    """

    tables: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    root: str | None = None
    store: str | None = None
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str = "test"
    workers: Annotated[int, Meta(ge=0)] = 8
    prefetch: Annotated[int, Meta(ge=1)] = 2


@dataclass(frozen=True)
class Labelled:
    """:param validation: whole images; empty where nothing is held out
    :param tests: whole images of each table that is measured on apart, by its file's name
    """

    training: list[Row]
    validation: list[Row]
    store: Store
    tests: dict[str, list[Row]] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = {"training": self.training, "validation": self.validation}
        parts |= {f"the test {name}": rows for name, rows in self.tests.items()}
        return ", ".join(f"{_count(rows)} for {name}" for name, rows in parts.items() if rows)


def read_labelled(settings: DataSettings) -> Labelled:
    """Rows to train on and rows to validate on, both of both classes.

    :raises TableError: a table cannot be used, or files are missing: it names all of them at once
    """
    training, validation = read_splits(settings)
    root = None if settings.root is None else Path(settings.root)
    store = open_store(None if settings.store is None else Path(settings.store))
    tests = _read_tests(settings, root)
    check_files([*training, *validation, *(row for rows in tests.values() for row in rows)], store)
    return Labelled(training, validation, store, tests)


def check_named(settings: DataSettings) -> None:
    """Checks that the tables and the store that are named are there; none is opened.

    :raises UserError: one is not there, or no table is named
    """
    if not settings.tables:
        raise TableError("no table is named: give --data CSV, or data.tables in the recipe")
    for path in map(Path, (*settings.tables, *settings.validation, *settings.tests)):
        if not path.exists():
            raise TableError(f"cannot read {printable(path)}: No such file or directory")
    if settings.store is not None and not Path(settings.store).exists():
        raise StoreError(f"there is no store {printable(settings.store)}")


def read_splits(settings: DataSettings) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows to validate on, both of both classes, whether or not their files are there.

    :raises TableError: a table cannot be used
    """
    root = None if settings.root is None else Path(settings.root)
    training = _read(settings.tables, settings.train_split, root)
    if not settings.validation and any(not row.split for row in training):
        raise TableError("a table has no column `split`: add one, or name a table of its own in data.validation")
    validation = _read(settings.validation or settings.tables, settings.validation_split, root)
    check_classes(training, f"the split {settings.train_split}")
    check_classes(validation, f"the split {settings.validation_split}")
    return training, validation


def read_unlabelled(settings: DataSettings) -> Labelled:
    """Rows to pre-train on, of any class."""
    root = None if settings.root is None else Path(settings.root)
    training = _read(settings.tables, settings.train_split, root)
    store = open_store(None if settings.store is None else Path(settings.store))
    check_files(training, store)
    return Labelled(training, [], store)


def check_files(rows: Sequence[Row], store: Store) -> None:
    """:raises TableError: names every image that is not there"""
    if missing := store.missing(rows):
        names = ", ".join(printable(name) for name in missing)
        raise TableError(f"{len(missing)} of {len(rows)} images are missing: {names}")


def _read(tables: Sequence[str], split: str, root: Path | None) -> list[Row]:
    if not tables:
        raise TableError("no table is named: give --data CSV, or data.tables in the recipe")
    return read_tables(map(Path, tables), split, root)


def _read_tests(settings: DataSettings, root: Path | None) -> dict[str, list[Row]]:
    """The rows of each test table, or of its test split where it has splits; it may hold one class alone.

    :raises TableError: two tables have one name, so that their metrics could not be told apart
    """
    tests: dict[str, list[Row]] = {}
    for path in map(Path, settings.tests):
        if (name := printable(path.stem)) in tests:
            raise TableError(f"two test tables are called {name}: give one of them another name")
        tests[name] = read_tables([path], settings.test_split, root)
    return tests


def _count(rows: Sequence[Row]) -> str:
    generated = sum(row.label == GENERATED for row in rows)
    return f"{len(rows)} images ({len(rows) - generated} real, {generated} AI-generated)"
