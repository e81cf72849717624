"""What INPUT names → items, in a fixed order."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from spai_runtime.errors import ImageError, SourceError
from spai_runtime.files.sources import Sources, printable
from spai_runtime.images import Picture
from tests.support.folders import deep_folders
from tests.support.users import as_nobody


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*inputs: str, split: str | None = None) -> list[str]:
    sources = Sources(inputs, split)
    found = [item.name for item in sources]
    assert sources.count() == len(found)
    return found


def test_files_are_taken_whatever_they_are_called() -> None:
    touch("b.jpg", "a", "c.doc")
    assert names("b.jpg", "a", "c.doc", "./a") == ["b.jpg", "a", "c.doc", "a"]


def test_a_folder_is_searched_in_order_of_names() -> None:
    touch("p/b.jpg", "p/a.PNG", "p/c/d.webp", "p/c/.hidden.jpg", "p/B.jpeg", "p/notes.txt", "p/list.csv", "p/z.tiff")
    assert names("p") == ["p/B.jpeg", "p/a.PNG", "p/b.jpg", "p/c/.hidden.jpg", "p/c/d.webp", "p/z.tiff"]


def test_a_folder_may_be_called_like_a_file() -> None:
    touch("x.csv/a.jpg", "y.txt/b.jpg", "p/z.jpg/c.jpg")
    assert names("x.csv", "y.txt", "p") == ["x.csv/a.jpg", "y.txt/b.jpg", "p/z.jpg/c.jpg"]


def test_links_are_followed_once() -> None:
    touch("p/a.jpg", "q/b.jpg")
    Path("p/self").symlink_to(".")
    Path("p/up").symlink_to("..")
    Path("p/q").symlink_to("../q")
    Path("p/loop.jpg").symlink_to("loop.jpg")
    Path("p/nowhere.jpg").symlink_to("gone.jpg")
    assert names("p") == ["p/a.jpg", "p/loop.jpg", "p/nowhere.jpg", "p/q/b.jpg"]


@pytest.mark.parametrize("depth", [990, 2000])
def test_a_tree_of_any_depth(depth: int) -> None:
    """The order is that of a path's names, one after the other, as a recursion would find them."""
    with deep_folders(Path("deep"), depth):
        found = names("deep")
        try:
            matches = len(names("deep/**/*.jpg"))
        except SourceError as error:
            assert "too deep for deep/**/*.jpg" in str(error)
        else:
            assert matches == len(found)
    assert found == sorted(found, key=lambda name: Path(name).parts)
    assert len(found) == 2 * (depth // 100 + (depth % 100 > 50)) + 1
    assert found[len(found) // 2] == "deep/" + "d/" * depth + "m.jpg"


def test_a_path_that_is_too_long_is_a_row() -> None:
    """One that the system takes from no program."""
    touch("e.jpg")
    with deep_folders(Path("deep"), 25, "d" * 200):
        first, last = names(".")
        with pytest.raises(ImageError, match="cannot be read: File name too long"):
            Picture.open(first)
    assert last == "e.jpg"
    assert first.startswith("deep/ddd")


def test_a_folder_that_cannot_be_entered_is_a_row(open_folder: Path) -> None:
    (open_folder / "shut").mkdir(mode=0)
    (open_folder / "a.jpg").touch()
    with as_nobody():
        assert names(str(open_folder)) == [f"{open_folder}/a.jpg", f"{open_folder}/shut"]


def test_globs() -> None:
    touch("a1.jpg", "a2.jpg", "b1.jpg", "p/a3.jpg", "p/q/a4.jpg")
    assert names("a*.jpg") == ["a1.jpg", "a2.jpg"]
    assert names("**/a?.jpg") == ["a1.jpg", "a2.jpg", "p/a3.jpg", "p/q/a4.jpg"]
    assert names("p*") == ["p/a3.jpg", "p/q/a4.jpg"]
    touch("p/notes.txt", "p/Thumbs.db", "p/upper.JPG")
    assert names("p/*") == ["p/a3.jpg", "p/q/a4.jpg", "p/upper.JPG"]  # no list, nothing that a folder would pass over
    Path("p/upper.JPG").unlink()
    Path("p/notes.txt").write_text("a3.jpg")
    assert names("p/*.txt") == ["p/a3.jpg"]  # spelled out
    assert names("p/**") == ["p/a3.jpg", "p/q/a4.jpg"]  # each once, though the pattern matches the folders too


def test_what_looks_like_a_glob_and_exists() -> None:
    touch("[1].jpg", "1.jpg", "p[*]/a.jpg")
    assert names("[1].jpg", "p[*]") == ["[1].jpg", "p[*]/a.jpg"]


def test_a_list_of_paths() -> None:
    Path("p").mkdir()
    content = "\ufeffa.jpg\r\n\n../b.jpg\n/c/d.jpg\n e, f.jpg\nlast.jpg"
    Path("p/list.TXT").write_text(content, encoding="utf-8", newline="")
    assert names("p/list.TXT") == ["p/a.jpg", "p/../b.jpg", "/c/d.jpg", "p/ e, f.jpg", "p/last.jpg"]


@pytest.mark.parametrize(("column", "other"), [("image", "class"), ("filename", "typ")])
def test_both_kinds_of_csv(column: str, other: str) -> None:
    Path("p").mkdir()
    Path("p/t.csv").write_text(f'\ufeff{other},{column},split\n1,a.jpg,val\n0,"b, ""c"".jpg",test\n2,/d.jpg,test\n')
    sources = Sources(["p/t.csv"])
    assert [(item.path, item.name, item.columns) for item in sources] == [
        (Path("p/a.jpg"), "p/a.jpg", {other: "1", column: "a.jpg", "split": "val"}),
        (Path('p/b, "c".jpg'), 'p/b, "c".jpg', {other: "0", column: 'b, "c".jpg', "split": "test"}),
        (Path("/d.jpg"), "/d.jpg", {other: "2", column: "/d.jpg", "split": "test"}),
    ]
    assert sources.columns == [other, column, "split"]
    assert names("p/t.csv", split="test") == ['p/b, "c".jpg', "/d.jpg"]


def test_a_name_with_a_newline_in_a_csv() -> None:
    Path("t.csv").write_text('image,n\n"a\nb.jpg",1\n"c\r.jpg",2\n', newline="")
    assert names("t.csv") == ["a\nb.jpg", "c\r.jpg"]


def test_short_and_long_rows() -> None:
    Path("t.csv").write_text("image,class,split\na.jpg\nb.jpg,1,val,more,cells\n")
    assert [item.columns for item in Sources(["t.csv"])] == [
        {"image": "a.jpg", "class": "", "split": ""},
        {"image": "b.jpg", "class": "1", "split": "val"},
    ]


def test_columns_of_several_tables_are_united() -> None:
    Path("t.csv").write_text("image,class\na.jpg,1\n")
    Path("u.csv").write_text("typ,filename,class\nx,b.jpg,0\n")
    touch("c.jpg")
    assert Sources(["t.csv", "c.jpg", "u.csv"]).columns == ["image", "class", "typ", "filename"]


def test_a_split_is_kept_of_tables_alone() -> None:
    Path("t.csv").write_text("image,split\na.jpg,val\nb.jpg,test\n")
    touch("c.jpg")
    assert names("t.csv", "c.jpg", split="val") == ["a.jpg", "c.jpg"]


def test_bytes_that_are_no_utf8() -> None:
    """They open as they are, and are written as escapes."""
    name = os.fsdecode(b"\xe9.jpg")
    touch(f"p/{name}")
    Path("t.csv").write_bytes(b"image,gr\xf6\xdfe\np/\xe9.jpg,\xe4\n")
    Path("l.txt").write_bytes(b"p/\xe9.jpg\n")
    items = [item for source in ("p", "t.csv", "l.txt") for item in Sources([source])]
    assert {item.name for item in items} == {"p/\\udce9.jpg"}
    assert all(item.path.is_file() for item in items)
    assert items[1].columns == {"image": "p/\\udce9.jpg", "gr\\udcf6\\udcdfe": "\\udce4"}
    assert Sources(["t.csv"]).columns == ["image", "gr\\udcf6\\udcdfe"]


def test_printable() -> None:
    assert printable(Path("a/é\n.jpg")) == "a/é\n.jpg"
    assert printable(os.fsdecode(b"\xff\xc3\xa9")) == "\\udcffé"


@pytest.mark.parametrize(
    ("inputs", "split", "message"),
    [
        (["gone.jpg"], None, "there is no file, folder or match for gone.jpg"),
        (["*.gone"], None, r"match for \*.gone"),
        (["empty"], None, "no images in empty"),
        (["empty", "other.csv"], None, "other.csv has no column image or filename; it has: name, class"),
        (["void.csv"], None, "void.csv has no column image or filename; it has: none"),
        (["t.csv"], "gone", "no images in the split gone in t.csv"),
        (["a.jpg"], "val", "--split needs a CSV input with a `split` column"),
        (["plain.csv"], "val", "--split needs a CSV input with a `split` column"),
        (["long.csv"], None, "long.csv is not a CSV: field larger"),
    ],
)
def test_inputs_that_cannot_be_used(inputs: Sequence[str], split: str | None, message: str) -> None:
    Path("empty/deep").mkdir(parents=True)
    touch("empty/notes.doc", "void.csv", "a.jpg")
    Path("other.csv").write_text("name,class\na.jpg,1\n")
    Path("plain.csv").write_text("image,class\na.jpg,1\n")
    Path("t.csv").write_text("image,split\na.jpg,val\n")
    Path("long.csv").write_text(f"image\n{'a' * 200_000}\n")
    with pytest.raises(SourceError, match=message):
        Sources(inputs, split).count()


def test_a_list_that_cannot_be_read(open_folder: Path) -> None:
    for name in ("t.csv", "l.txt"):
        (open_folder / name).write_text("image\na.jpg\n")
        (open_folder / name).chmod(0)
        with as_nobody(), pytest.raises(SourceError, match=rf"cannot read .*{name}: Permission denied"):
            Sources([str(open_folder / name)]).count()
