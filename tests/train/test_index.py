"""The index of a data set: counts recomputed by hand, copies and broken files planted one by one."""

import csv
import hashlib
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import typer
from PIL import Image

from spai_runtime.cli.commands import execute
from spai_runtime.errors import UserError
from spai_runtime.files.sources import Sources
from spai_train.commands import index as command
from spai_train.data.index import Checked, Index, Splitting, read_images, relative_to, tabulate
from spai_train.data.layouts import Found
from spai_train.data.table import Row, read_table
from tests.support.commands import Ran, Run
from tests.support.images import Write, pixels, write_bad_images, write_odd_images


def checked(name: str, content: str, label: int = 0, source: str = "s", split: str = "") -> Checked:
    return Checked(Found(Path("/data") / name, label, source, split), hashlib.sha256(content.encode()).digest())


def table(images: Iterable[Checked], splitting: Splitting | None = None) -> Index:
    return tabulate(images, Path("/data"), splitting or Splitting())


def many(count: int, source: str = "s", label: int = 0) -> list[Checked]:
    return [checked(f"{source}/{label}/{at}.png", f"{source} {label} {at}", label, source) for at in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 99, 1000])
@pytest.mark.parametrize(
    "shares", [(0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3), (0, 0.5, 0.5), (1, 0, 0), (0.5, 0.1, 0.1, 0.3)]
)
def test_each_source_is_split_within_one_of_its_shares(count: int, shares: tuple[float, ...]) -> None:
    images = [*many(count), *many(count + 5, "s", 1), *many(2 * count, "t")]
    rows = table(images, Splitting(shares=shares)).rows
    assert [row.path for row in rows] == [image.found.path for image in images]
    for source, label, size in (("s", 0, count), ("s", 1, count + 5), ("t", 0, 2 * count)):
        splits = Counter(row.split for row in rows if (row.source, row.label) == (source, label))
        assert splits.total() == size
        for split, share in zip(("train", "val", "test", "calibration"), shares, strict=False):
            assert abs(splits[split] - share * size) <= 1
            assert share > 0 or splits[split] == 0


def test_a_split_follows_from_the_seed_and_the_files_alone() -> None:
    images = many(200)
    moved = [Checked(Found(Path(f"/else/{at}.png"), 0, "s"), image.digest) for at, image in enumerate(images)][::-1]
    first, again, other = (table(of, Splitting(seed=seed)).rows for of, seed in ((images, 1), (moved, 1), (images, 2)))
    assert [row.split for row in first] == [row.split for row in again[::-1]]
    assert [row.split for row in first] != [row.split for row in other]
    assert len({row.split for row in first[:60]}) == 3  # shuffled, not cut in the order of the names


def test_adding_images_moves_few_of_the_others() -> None:
    before, after = table(many(1000)).rows, table(many(1050)).rows
    moved = sum(old.split != new.split for old, new in zip(before, after[:1000], strict=True))
    assert moved < 50


def test_a_named_split_goes_to_the_images_that_have_none() -> None:
    images = [checked("a", "a"), checked("b", "b", split="val"), checked("c", "c", 1)]
    assert [row.split for row in table(images, Splitting("holdout")).rows] == ["holdout", "val", "holdout"]
    with pytest.raises(UserError, match="every image has a split by its folder: leave --split holdout out"):
        table(images[1:2], Splitting("holdout"))


@pytest.mark.parametrize(
    "shares", [(0.8, 0.1, 0.2), (0.5, 0.5), (1.2, -0.1, -0.1), (0.2,) * 5, (math.nan, 0.5, 0.5), ()]
)
def test_shares_must_be_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(
        UserError, match="where those of train, val, test and perhaps calibration were expected, which sum"
    ):
        Splitting(shares=shares)


def test_of_copies_the_one_that_is_tested_on_stays() -> None:
    images = [
        checked("1", "x", split="train"),
        checked("2", "y", split="train"),
        checked("3", "x", split="val", source="t"),
        checked("4", "x", split="test"),
        checked("5", "y", split="holdout"),
        checked("6", "z"),
        checked("7", "z", split="train"),
        checked("8", "w", split="val"),
        checked("9", "w", split="val"),
    ]
    index = table(images)
    assert [(row.name, row.split) for row in index.rows] == [
        ("4", "test"),
        ("5", "holdout"),
        ("7", "train"),
        ("8", "val"),
    ]
    assert {str(left) for left in index.copies} == {
        "/data/1: the same file as /data/4, which stays in test",
        "/data/3: the same file as /data/4, which stays in test",
        "/data/2: the same file as /data/5, which stays in holdout",
        "/data/6: the same file as /data/7, which stays in train",
        "/data/9: the same file as /data/8",
    }
    assert index.broken == []


def test_copies_are_gone_before_the_images_are_split() -> None:
    images = many(100)
    twice = [*images, *(Checked(Found(image.found.path / "copy", 0, "t"), image.digest) for image in images)]
    index = table(twice)
    assert index.rows == table(images).rows
    assert len(index.copies) == 100


def test_a_file_of_both_classes_is_in_neither() -> None:
    images = [checked("r", "x"), checked("f", "x", 1), checked("r2", "x", split="test"), checked("k", "k")]
    index = table(images)
    assert [row.name for row in index.rows] == ["k"]
    assert [str(left) for left in index.broken] == [
        "/data/r: real here and AI-generated as /data/f",
        "/data/f: AI-generated here and real as /data/r",
        "/data/r2: real here and AI-generated as /data/f",
    ]
    assert index.copies == []


def test_names_lead_from_the_table_to_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in ("project/data", "disk/deep/real", "elsewhere"):
        (tmp_path / made).mkdir(parents=True)
    (tmp_path / "project" / "link").symlink_to(tmp_path / "disk" / "deep")
    (tmp_path / "alias").symlink_to(tmp_path / "project" / "data")
    monkeypatch.chdir(tmp_path / "project")
    files = {
        Path("data/a.png"): ("a.png", "data/a.png"),
        tmp_path / "elsewhere" / "b.png": ("../../elsewhere/b.png", "../elsewhere/b.png"),
        Path("link/real/c.png"): ("../link/real/c.png", "link/real/c.png"),
        Path("link/../d.png"): ("../../disk/d.png", "../disk/d.png"),
        Path("../project/data/e.png"): ("e.png", "data/e.png"),
    }
    for path, (below, beside) in files.items():
        path.touch()
        for folder, wanted in ((tmp_path / "project" / "data", below), (Path(), beside), (tmp_path / "alias", below)):
            name = relative_to(folder)(path)
            assert name == wanted
            assert (folder / name).samefile(path)


def test_every_file_is_read_and_the_broken_ones_say_why(tmp_path: Path) -> None:
    good = {"a.png", "b.jpg"}
    for name in good:
        Image.fromarray(pixels(8, 9)).save(tmp_path / name)
    (tmp_path / "bad").mkdir()
    bad = write_bad_images(tmp_path / "bad")
    bad.pop("unreadable.jpg")  # root reads it
    found = [Found(tmp_path / name, 0, "s") for name in sorted(good)]
    found += [Found(tmp_path / "bad" / name, 1, "s") for name in bad]
    found.append(Found(tmp_path / "a.png", None, ""))
    images = list(read_images(found, workers=3))
    assert [image.found for image in images] == found
    for image in images[:2]:
        assert (image.digest, image.error) == (hashlib.sha256(image.found.path.read_bytes()).digest(), "")
    for image, why in zip(images[2:], [*bad.values(), "in no folder that tells its class"], strict=True):
        assert why in image.error
        assert image.digest == b""


def test_without_verification_files_are_read_and_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    found = [Found(tmp_path / name, 0, "s") for name in ("text.jpg", "gone.jpg")]
    text, gone = read_images(found, 1, verify=False)
    assert text.digest == hashlib.sha256(b"no image").digest()
    assert "No such file" in gone.error


def test_reading_runs_a_bounded_number_of_files_ahead(tmp_path: Path) -> None:
    taken = 0

    def found() -> Iterable[Found]:
        nonlocal taken
        for at in range(1000):
            taken += 1
            yield Found(tmp_path / f"{at}.png", 0, "s")

    images = read_images(found(), workers=2)
    next(iter(images))
    assert taken < 20
    assert len(list(images)) == 999


@pytest.fixture
def spai_index(capfd: pytest.CaptureFixture[str]) -> Run:
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("index", epilog=command.EPILOG)(command.run)

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = execute(app, "spai-train", ["index", *map(str, arguments)])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


def by_hand(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(map(tuple, csv.reader(file)))


def test_folders_become_a_table_that_training_and_the_runtime_read(
    tmp_path: Path, photo: Write, spai_index: Run
) -> None:
    for at in range(10):
        photo(f"photos/{at}.png", 8, 8, seed=at)
        photo(f"glide/{at}.webp", 8, 8, seed=100 + at, lossless=True)
        photo(f"a very long name {'of a generator ' * 8}/{at}.jpg", 8, 8, seed=200 + at)
    output = tmp_path / "tables" / "index.csv"
    long = next(tmp_path.glob("a very*"))
    ran = spai_index("--real", tmp_path / "photos", "--fake", tmp_path / "glide", "--fake", long, "--output", output)
    assert (ran.code, ran.stderr) == (0, "")
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert lines[0] == ["source", "class", "train", "val", "test", "all"]
    assert [line[-5:] for line in lines[1:4]] == [
        ["ai", "8", "1", "1", "10"],
        ["ai", "8", "1", "1", "10"],
        ["real", "8", "1", "1", "10"],
    ]
    assert ran.stdout.splitlines()[1].startswith(long.name)
    assert lines[4:] == [[str(output)]]

    header, *cells = by_hand(output)
    assert header == ("image", "class", "split", "source")
    files = [*sorted((tmp_path / "photos").iterdir()), *sorted((tmp_path / "glide").iterdir()), *sorted(long.iterdir())]
    assert [name for name, *_ in cells] == [f"../{path.relative_to(tmp_path).as_posix()}" for path in files]
    assert [(label, source) for _, label, _, source in cells] == (
        [("0", "photos")] * 10 + [("1", "glide")] * 10 + [("1", long.name)] * 10
    )
    assert Counter(row.split for row in read_table(output)) == Counter(train=24, val=3, test=3)
    assert all(item.path.is_file() for item in Sources([str(output)], "test"))

    content = output.read_bytes()
    spai_index("--real", tmp_path / "photos", "--fake", tmp_path / "glide", "--fake", long, "--output", output)
    assert output.read_bytes() == content


def test_odd_files_and_names_are_in_the_table(tmp_path: Path, spai_index: Run) -> None:
    (tmp_path / "odd").mkdir()
    names = write_odd_images(tmp_path / "odd")
    Image.fromarray(pixels(40, 50, seed=1)).save(tmp_path / "odd" / "comma, and\nnewline.png")  # no copy of another
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ran = spai_index("--real", tmp_path / "odd", "--output", tmp_path / "t.csv", "--split", "test")
    kept = read_table(tmp_path / "t.csv")
    assert (ran.code, ran.stderr) == (0, "")
    assert [row.name for row in kept] == [f"odd/{name}" for name in names]
    assert {row.split for row in kept} == {"test"}
    assert all(os.path.exists(row.path) for row in kept)  # noqa: PTH110


def test_what_is_left_out_is_named_and_the_exit_code_says_so(tmp_path: Path, photo: Write, spai_index: Run) -> None:
    photo("set/train/cat/0_real/a.png", 8, 8, seed=1)
    photo("set/train/cat/1_fake/b.png", 8, 8, seed=2)
    photo("set/test/cat/0_real/copy of a.png", 8, 8, seed=1)
    photo("set/val/cat/1_fake/c.png", 8, 8, seed=3)
    arguments = (tmp_path / "set", "--layout", "cnndetection", "--output", tmp_path / "t.csv")
    ran = spai_index(*arguments)
    assert ran.code == 0  # a copy stands for the other
    assert ran.stderr.splitlines() == [
        f"{tmp_path}/set/train/cat/0_real/a.png: the same file as {tmp_path}/set/test/cat/0_real/copy of a.png, "
        "which stays in test",
        "left out because the table has the same image: 1",
    ]
    photo("set/val/cat/0_real/c.png", 8, 8, seed=3)
    (tmp_path / "set" / "train" / "cat" / "1_fake" / "broken.png").write_text("no image")
    photo("set/thumbnail.png", 8, 8, seed=4)
    ran = spai_index(*arguments)
    assert ran.code == 3
    assert "broken.png: not an image" in ran.stderr
    assert "thumbnail.png: in no folder that tells its class" in ran.stderr
    assert ran.stderr.splitlines()[-2:] == [
        "left out because they cannot be used: 4",
        "left out because the table has the same image: 1",
    ]
    assert by_hand(tmp_path / "t.csv")[1:] == [
        ("set/test/cat/0_real/copy of a.png", "0", "test", "cat"),
        ("set/train/cat/1_fake/b.png", "1", "train", "cat"),
    ]


def test_every_layout_has_its_folders(tmp_path: Path, photo: Write, spai_index: Run) -> None:
    for at, name in enumerate(
        (
            "gen/sd/train/ai/1.png",
            "gen/sd/val/nature/2.png",
            "ldm/train/3.png",
            "coco/train2017/4.jpg",
            "cnn/train/cat/0_real/5.png",
            "sb/glide/r1.png",
            "raise/tiff/r1.tif",
        )
    ):
        photo(name, 8, 8, seed=at)
    (tmp_path / "ldm" / "train" / "real_coco.txt").write_text("4.jpg\n")
    (tmp_path / "ldm" / "train" / "real_lsun.txt").write_text("cat_5.png\n")
    (tmp_path / "sb" / "prompts.csv").write_text("image name (matching Raise-1k)\nr1\n")
    folder, output = tmp_path, tmp_path / "t.csv"
    for arguments, expected in (
        (("genimage", folder / "gen"), "gen/sd/train/ai/1.png,1,train,sd gen/sd/val/nature/2.png,0,val,imagenet"),
        (
            ("dmid", folder / "ldm", "--coco", folder / "coco", "--lsun", folder / "cnn"),
            "ldm/train/3.png,1,train,latent-diffusion coco/train2017/4.jpg,0,train,coco "
            "cnn/train/cat/0_real/5.png,0,train,lsun",
        ),
        (
            ("synthbuster", folder / "sb", "--raise", folder / "raise"),
            "sb/glide/r1.png,1,test,glide raise/tiff/r1.tif,0,test,raise",
        ),
    ):
        assert spai_index("--layout", *arguments, "--output", output).code == 0
        assert [",".join(line) for line in by_hand(output)[1:]] == expected.split()


def test_errors_are_one_line(tmp_path: Path, photo: Write, spai_index: Run) -> None:
    photo("real/a.png", 8, 8)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no image")
    (tmp_path / "file").touch()
    real, table = ("--real", tmp_path / "real"), ("--output", tmp_path / "t.csv")
    for arguments, message in (
        (table, "name the images: --real DIR and --fake DIR, or --layout NAME DIR"),
        ((tmp_path, *real, *table), "name the images"),
        ((*real, "--layout", "genimage", *table), "--layout genimage takes DIR, and nothing else"),
        ((tmp_path, "--layout", "dmid", *table), "--layout dmid takes DIR and --coco and --lsun"),
        ((tmp_path, "--layout", "genimages", *table), "'genimages' is not one of"),
        ((tmp_path / "real", "--layout", "cnndetection", *table), "1 images, but none in a folder"),
        (("--real", tmp_path / "gone", *table), f"there is no folder {tmp_path / 'gone'}"),
        ((*real, *table, "--shares", "0.5,0.4,0.2"), "shares are 0.5,0.4,0.2 where"),
        ((*real, *table, "--shares", "half"), "--shares is half where three numbers"),
        ((*real, "--output", tmp_path / "t.txt"), "name a .csv file"),
        ((*real, "--output", tmp_path / "file" / "t.csv"), f"cannot write {tmp_path / 'file' / 't.csv'}: "),
    ):
        ran = spai_index(*arguments)
        assert (ran.code, ran.stdout) == (2, "")
        assert message in ran.stderr
        assert ran.stderr.count("\n") == 1
    ran = spai_index("--real", tmp_path / "broken", *table)
    assert ran.code == 2
    assert ran.stderr.splitlines()[-1] == (
        "spai-train: none of the 1 images can be used, so there is no table to write"
    )
    assert not (tmp_path / "t.csv").exists()


def test_rows_point_at_the_files() -> None:
    assert table([checked("a", "a", 1, "g", "val")]).rows == [Row("a", Path("/data/a"), 1, "val", "g")]
