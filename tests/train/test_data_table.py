"""Tables of labelled images: what is read is what a plain CSV reader sees, and what is wrong is said with its line."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from spai_runtime.files.sources import Sources
from spai_train.data.table import Row, TableError, check_classes, counts, read_table, read_tables, write_table

LINES = [
    ("photos/a.png", 0, "train", "camera"),
    ("../elsewhere/b, c.jpg", 1, "train", "glide"),
    ('say "cheese"\n.png', 0, "test", "camera"),
    ("ü/é.webp", 1, "val", "dall·e"),
]


def rows_of(folder: Path) -> list[Row]:
    return [Row(name, folder / name, label, split, source) for name, label, split, source in LINES]


def text(folder: Path, content: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_what_is_written_is_read_again_by_us_and_by_a_plain_reader(tmp_path: Path) -> None:
    path, rows = tmp_path / "table.csv", rows_of(tmp_path)
    write_table(path, rows)
    assert read_table(path) == rows
    with path.open(encoding="utf-8", newline="") as file:
        header, *cells = csv.reader(file)
    assert header == ["image", "class", "split", "source"]
    assert [tuple(line) for line in cells] == [(name, str(label), *rest) for name, label, *rest in LINES]
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_names_that_are_not_utf8_survive_and_the_runtime_finds_the_files(tmp_path: Path) -> None:
    name = os.fsdecode(b"latin-\xe9.png")
    (tmp_path / name).write_bytes(b"x")
    write_table(tmp_path / "table.csv", [Row(name, tmp_path / name, 1, "", "s")])
    (row,) = read_table(tmp_path / "table.csv")
    assert row.path.read_bytes() == b"x"
    assert [item.path for item in Sources([str(tmp_path / "table.csv")])] == [row.path]


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = text(tmp_path, "old")

    def failing() -> list[Row]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_table(path, (row for row in failing()))
    assert path.read_text() == "old"


def test_a_split_is_kept_and_a_root_is_put_in_front(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", rows_of(tmp_path))
    kept = read_table(tmp_path / "table.csv", "train", root=Path("/data"))
    assert [row.name for row in kept] == [name for name, _, split, _ in LINES if split == "train"]
    assert [row.path for row in kept] == [Path("/data") / row.name for row in kept]


def test_a_table_without_splits_is_kept_whole_but_a_row_without_one_is_in_none(tmp_path: Path) -> None:
    plain = text(tmp_path, "image,class\na,0\nb,1\n", "plain.csv")
    assert [row.name for row in read_table(plain, "test")] == ["a", "b"]
    some = text(tmp_path, "image,class,split\na,0,\nb,1,test\n", "some.csv")
    assert [row.name for row in read_table(some, "test")] == ["b"]
    assert [row.name for row in read_table(some)] == ["a", "b"]


def test_grip_tables_name_the_generator(tmp_path: Path) -> None:
    path = text(tmp_path, "filename,typ\na.png,real\nb.png,glide\n")
    assert [(row.name, row.label, row.source) for row in read_table(path)] == [
        ("a.png", 0, "real"),
        ("b.png", 1, "glide"),
    ]


def test_the_source_left_out_is_the_table_s_name_and_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    path = text(tmp_path, "\ufeffimage,class,split\na,0,test\n", "real_coco.csv")
    assert read_table(path)[0].source == "real_coco"


def test_tables_follow_one_another(tmp_path: Path) -> None:
    first, second = text(tmp_path, "image,class\na,0\n", "1.csv"), text(tmp_path, "image,class\nb,1\n", "2.csv")
    assert [row.name for row in read_tables([second, first])] == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,class\na,0\n", "has no column image (or filename); it has: path, class"),
        ("image,label\na,0\n", "has no column class (or typ); it has: image, label"),
        ("", "has no column image (or filename); it has: none"),
        ("image,class\n", "has no row below its header"),
        ("image,class\na,0\nb,2\n", "line 3: class is '2' where 0 (real) or 1 (AI-generated) was expected"),
        ("image,class\na\n", "line 2: class is '' where"),
        ('image,class\n"a\nb",0\n\nc,x\n', "line 5: class is 'x' where"),
        ("image,class\n,0\n", "line 2: the column image is empty"),
        ("filename,typ\na,\n", "line 2: typ is '' where real or a generator was expected"),
        (f"image,class\n{'a' * 200_000},0\n", "is not a CSV: field larger than field limit"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(text(tmp_path, content))
    assert message in str(caught.value)


def test_a_split_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    path = text(tmp_path, "image,class,split\na,0,train\nb,1,val\nc,1,\n")
    with pytest.raises(TableError, match="no row in the split test; it has: none, train, val"):
        read_table(path, "test")


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="No such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(TableError, match="Is a directory"):
        read_table(tmp_path)


def test_training_needs_both_classes(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    check_classes(rows, "the split train")
    for label, kind in ((0, "real"), (1, "AI-generated")):
        with pytest.raises(TableError, match=f"the split val holds {kind} images alone"):
            check_classes([row for row in rows if row.label == label], "the split val")


def test_counts(tmp_path: Path) -> None:
    table = counts(rows_of(tmp_path))
    assert table == {
        ("camera", 0): Counter(train=1, test=1),
        ("glide", 1): Counter(train=1),
        ("dall·e", 1): Counter(val=1),
    }
