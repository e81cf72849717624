"""Labelled rows: which ones train and which validate, and every reason why they cannot, before anything is computed."""

import csv
import tarfile
from pathlib import Path
from typing import Any

import pytest

from spai_train.data.rows import DataSettings, Labelled, read_labelled, read_unlabelled
from spai_train.data.table import TableError

HEADER = ("image", "class", "split")
ROWS = [("a.png", 0, "train"), ("b.png", 1, "train"), ("c.png", 1, "train"), ("d.png", 0, "val"), ("e.png", 1, "val")]


def write(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = HEADER) -> str:
    """A table, and a file beside it for each row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows([header, *(row[: len(header)] for row in rows)])
    for name, *_ in rows:
        (path.parent / name).touch()
    return str(path)


def names(data: Labelled) -> tuple[list[str], list[str]]:
    return [row.name for row in data.training], [row.name for row in data.validation]


def test_splits_of_one_table(tmp_path: Path) -> None:
    data = read_labelled(DataSettings(tables=(write(tmp_path / "t.csv", ROWS),)))
    assert names(data) == (["a.png", "b.png", "c.png"], ["d.png", "e.png"])
    assert [row.label for row in data.training] == [0, 1, 1]
    assert str(data) == (
        "3 images (1 real, 2 AI-generated) for training, 2 images (1 real, 1 AI-generated) for validation"
    )


def test_splits_may_have_other_names(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", ROWS)
    data = read_labelled(DataSettings(tables=(table,), train_split="val", validation_split="train"))
    assert names(data) == (["d.png", "e.png"], ["a.png", "b.png", "c.png"])


def test_validation_may_have_tables_of_its_own(tmp_path: Path) -> None:
    tables = tuple(write(tmp_path / name / "t.csv", ROWS[:3], HEADER[:2]) for name in ("one", "two"))
    other = write(tmp_path / "other.csv", ROWS[3:])
    data = read_labelled(DataSettings(tables=tables, validation=(other,)))
    assert names(data) == (["a.png", "b.png", "c.png"] * 2, ["d.png", "e.png"])
    assert data.training[3].path == tmp_path / "two" / "a.png"


def test_tests_are_tables_of_one_class_too_in_their_own_split(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", ROWS)
    fake = write(tmp_path / "tests" / "fake.csv", [("f.png", 1, "test"), ("g.png", 1, "val"), ("h.png", 1, "test")])
    plain = write(tmp_path / "tests" / "plain.csv", [("i.png", 0)], HEADER[:2])
    data = read_labelled(DataSettings(tables=(table,), tests=(fake, plain)))
    assert {name: [row.name for row in rows] for name, rows in data.tests.items()} == {
        "fake": ["f.png", "h.png"],
        "plain": ["i.png"],
    }
    assert str(data).endswith(
        "2 images (0 real, 2 AI-generated) for the test fake, 1 images (1 real, 0 AI-generated) for the test plain"
    )
    (tmp_path / "tests" / "h.png").unlink()
    with pytest.raises(TableError, match=r"1 of 8 images are missing: h\.png"):
        read_labelled(DataSettings(tables=(table,), tests=(fake, plain)))


def test_two_tests_of_one_name_are_refused(tmp_path: Path) -> None:
    tables = tuple(write(tmp_path / name / "t.csv", ROWS) for name in ("one", "two"))
    with pytest.raises(TableError, match="two test tables are called t: give one of them another name"):
        read_labelled(DataSettings(tables=tables[:1], tests=tables, test_split="val"))


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    table = write(tmp_path / "tables" / "t.csv", ROWS)
    write(tmp_path / "images" / "unused.csv", ROWS)
    data = read_labelled(DataSettings(tables=(table,), root=str(tmp_path / "images")))
    assert data.training[0].path == tmp_path / "images" / "a.png"
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name, *_ in ROWS:
            tar.add(tmp_path / "images" / name, name)
    stored = read_labelled(DataSettings(tables=(table,), root="nowhere", store=str(tmp_path / "images.tar")))
    assert names(stored) == names(data)


def test_pre_training_takes_any_class(tmp_path: Path) -> None:
    data = read_unlabelled(DataSettings(tables=(write(tmp_path / "t.csv", ROWS[:1]),)))
    assert names(data) == (["a.png"], [])
    assert str(data) == "1 images (1 real, 0 AI-generated) for training"


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (ROWS[1:], HEADER, "the split train holds AI-generated images alone; training needs both classes"),
        (ROWS[:4], HEADER, "the split val holds real images alone"),
        (ROWS[:3], HEADER, "has no row in the split val; it has: train"),
        (ROWS[3:], HEADER, "has no row in the split train; it has: val"),
        (ROWS, HEADER[:2], "has no column `split`: add one, or name a table of its own in data.validation"),
        ([], HEADER, "has no row below its header"),
    ],
)
def test_rows_that_will_not_do(rows: list[tuple[Any, ...]], header: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=said):
        read_labelled(DataSettings(tables=(write(tmp_path / "t.csv", rows, header),)))


@pytest.mark.parametrize("read", [read_labelled, read_unlabelled])
def test_no_table_is_a_sentence(read: Any) -> None:
    with pytest.raises(TableError, match=r"no table is named: give --data CSV, or data\.tables in the recipe"):
        read(DataSettings())


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (read_labelled, "3 of 6 images are missing: b.png, new\\udce9.png, e.png"),
        (read_unlabelled, "2 of 4 images are missing: b.png, new\\udce9.png"),
    ],
)
def test_missing_images_are_all_named_at_once(read: Any, said: str, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [*ROWS, ("new\udce9.png", 0, "train")])
    for name in ("b.png", "e.png", "new\udce9.png"):
        (tmp_path / name).unlink()
    with pytest.raises(TableError) as caught:
        read(DataSettings(tables=(table,)))
    assert str(caught.value) == said
