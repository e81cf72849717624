"""spai-train augment: a copy of a split that follows from its seed, and what is in the way of one."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from spai_runtime.cli.commands import execute
from spai_runtime.images import Picture, read_image
from spai_train.commands import augment as command
from spai_train.data.table import read_table
from tests.support.commands import Ran
from tests.support.images import Write, write_bad_images

app = typer.Typer()
app.command("augment", epilog=command.EPILOG)(command.run)


@app.callback()
def root() -> None:
    """One command among others, as in spai-train."""


@pytest.fixture
def augment(capfd: pytest.CaptureFixture[str]) -> "Augmenting":
    return Augmenting(capfd)


class Augmenting:
    """`augment(table, "--output", folder)` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Ran:
        self._capture.readouterr()
        code = execute(app, "spai-train", ["augment", *map(str, arguments)])
        captured = self._capture.readouterr()
        return Ran(code, captured.out, captured.err)


def write_csv(path: Path, rows: list[tuple[str, int, str, str]]) -> Path:
    with path.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([("image", "class", "split", "source"), *rows])
    return path


@pytest.fixture
def table(photo: Write, tmp_path: Path) -> Path:
    """Three images to validate on, of which two have the same stem, and one to train on."""
    rows = [
        ("real/a.png", 0, "val", "camera"),
        ("generated/a.jpg", 1, "val", "sd3"),
        ("train.png", 1, "train", "sd3"),
        ("grey, and\nodd.png", 0, "val", "camera"),
    ]
    for seed, (name, *_) in enumerate(rows):
        photo(name, 60 + seed, 80, seed=seed, mode="L" if "grey" in name else "RGB")
    return write_csv(tmp_path / "images.csv", rows)


def contents(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_copy_holds_the_split_with_its_labels(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "copy"
    done = augment(table, "--output", output, "--size", 32)
    assert (done.code, done.stdout, done.stderr) == (0, f"{output / 'images.csv'}\n", "")
    rows = read_table(output / "images.csv")
    assert [(row.label, row.split, row.source) for row in rows] == [
        (0, "val", "camera"),
        (1, "val", "sd3"),
        (0, "val", "camera"),
    ]
    assert len({row.path for row in rows} & set((output / "images").iterdir())) == 3
    for row in rows:
        assert Picture.open(row.path).load().array().shape == (32, 32, 3)
        assert Image.open(row.path).format == "PNG"


def test_copy_follows_from_its_seed_whatever_the_threads(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    for name, options in {"a": ("--workers", 1), "b": ("--workers", 3), "c": ("--seed", 1)}.items():
        assert augment(table, "--output", tmp_path / name, "--size", 32, *options).code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a").values()).isdisjoint(
        content for name, content in contents(tmp_path / "c").items() if name.endswith(".png")
    )


def test_image_does_not_depend_on_the_rows_around_it(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    lines = [(row.name, row.label, row.split, row.source) for row in read_table(table, "val")]
    fewer = write_csv(tmp_path / "fewer.csv", lines[::-1][:2])
    augment(table, "--output", tmp_path / "all")
    augment(fewer, "--output", tmp_path / "some")
    images = {path.name: path.read_bytes() for path in (tmp_path / "all/images").iterdir()}
    kept = {path.name: path.read_bytes() for path in (tmp_path / "some/images").iterdir()}
    assert len(kept) == 2
    assert kept.items() < images.items()


def test_settings_replace_those_of_fine_tuning(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    """With everything off and no resizing, a copy of its image's size is the image."""
    names = ("horizontal_flip", "vertical_flip", "rotation", "blur", "noise", "jpeg")
    off = [option for name in names for option in ("--set", f"{name}=0")]
    done = augment(table, "--output", tmp_path / "o", "--split", "train", "--size", 62, "--set", "crop=[1, 1]", *off)
    assert done.code == 0
    (row,) = read_table(tmp_path / "o/images.csv")
    copied, original = read_image(row.path), read_image(tmp_path / "train.png")
    assert copied.shape == (62, 62, 3)
    assert any(np.array_equal(copied, original[:, left : left + 62]) for left in range(19))


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("jpg=0.5", "has no key `jpg`; it has crop, ratio, "),
        ("jpeg=often", "Expected `float`, got `str` - at `$.augmentation.jpeg`"),
        ("crop=[1, 0.5]", "crop goes from 1.0 to 0.5; put the lower value first"),
        ("crop=[1", "--set crop=[1: the value is not YAML"),
    ],
)
def test_setting_that_there_is_not_is_one_sentence(
    augment: Augmenting, table: Path, tmp_path: Path, assignment: str, said: str
) -> None:
    done = augment(table, "--output", tmp_path / "o", "--split", "train", "--set", assignment)
    assert done.code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_recipe_says_how(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    """The demo's only crops and mirrors."""
    done = augment(table, "--output", tmp_path / "o", "--split", "train", "--size", 62, "--recipe", "demo")
    assert done.code == 0
    (row,) = read_table(tmp_path / "o/images.csv")
    copied, original = read_image(row.path), read_image(tmp_path / "train.png")
    mirrored = [copied[::up, ::left] for up in (1, -1) for left in (1, -1)]
    assert any(np.array_equal(each, original[:, left : left + 62]) for each in mirrored for left in range(19))


def test_images_that_cannot_be_read_are_named_and_left_out(augment: Augmenting, open_folder: Path) -> None:
    bad = write_bad_images(open_folder)
    del bad["unreadable.jpg"]  # which root can read
    Image.new("RGB", (40, 40)).save(open_folder / "good.png")
    names = [*bad, "good.png"]
    table = write_csv(open_folder / "images.csv", [(name, 0, "val", "") for name in names])
    done = augment(table, "--output", open_folder / "copy", "--size", 32)
    assert done.code == 3
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == list(bad)
    assert all(reason in line for line, reason in zip(lines, bad.values(), strict=True))
    (row,) = read_table(open_folder / "copy/images.csv")
    assert row.path.name.startswith("good-")


def test_no_image_at_all_is_an_error(augment: Augmenting, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "images.csv", [("a.png", 0, "val", ""), ("b.png", 1, "val", "")])
    done = augment(table, "--output", tmp_path / "copy")
    assert done.code == 2
    assert done.stderr.splitlines()[-1] == (
        "spai-train: none of the 2 images can be read; say with --root what paths are relative to"
    )
    assert not list((tmp_path / "copy").glob("*.csv"))


def test_root_is_what_paths_are_relative_to(augment: Augmenting, photo: Write, tmp_path: Path) -> None:
    photo("elsewhere/a.png", 40, 40)
    table = write_csv(tmp_path / "images.csv", [("a.png", 0, "val", "")])
    assert augment(table, "--output", tmp_path / "o", "--root", tmp_path / "elsewhere", "--size", 32).code == 0


def test_names_cannot_leave_the_folder(augment: Augmenting, photo: Write, tmp_path: Path) -> None:
    outside = photo("a.png", 40, 40)
    (tmp_path / "tables").mkdir()
    rows = [("../a.png", 0, "val", ""), (str(outside), 1, "val", ""), ("../tables/../a.png", 1, "val", "")]
    table = write_csv(tmp_path / "tables" / "images.csv", rows)
    assert augment(table, "--output", tmp_path / "o", "--size", 32).code == 0
    assert len(list((tmp_path / "o/images").iterdir())) == 3


@pytest.mark.parametrize("name", ["x" * 200 + ".png", "latin-\udce9.png"])
def test_long_names_and_names_in_bytes_are_copied(name: str, augment: Augmenting, photo: Write, tmp_path: Path) -> None:
    photo(name, 40, 40)
    table = write_csv(tmp_path / "images.csv", [(name, 0, "val", "")])
    done = augment(table, "--output", tmp_path / "o", "--size", 32)
    assert (done.code, done.stderr) == (0, "")
    (row,) = read_table(tmp_path / "o/images.csv")
    assert row.path.is_file()


def test_folder_with_something_in_it_is_left_alone(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("keep")
    done = augment(table, "--output", tmp_path / "full")
    assert (done.code, done.stderr) == (
        2,
        f"spai-train: {tmp_path / 'full'} is not empty; name a folder to make, or empty it\n",
    )
    assert contents(tmp_path / "full") == {"note.txt": b"keep"}


def test_output_that_is_a_file_and_split_that_there_is_not_are_errors(
    augment: Augmenting, table: Path, tmp_path: Path
) -> None:
    done = augment(table, "--output", table)
    assert (done.code, done.stderr) == (2, f"spai-train: cannot write {table}: File exists\n")
    done = augment(table, "--output", tmp_path / "o", "--split", "test")
    assert (done.code, done.stderr) == (
        2,
        f"spai-train: {table} has no row in the split test; it has: train, val\n",
    )
    assert not (tmp_path / "o").exists()


def test_help_says_what_the_exit_code_means(augment: Augmenting) -> None:
    shown = " ".join(augment("--help").stdout.split())
    assert "Exit code: 0 written; 3" in shown


def test_without_torch_there_is_help_and_a_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['yaml'] = None\n"
        "import typer; from spai_train.commands import augment; from spai_runtime.cli.commands import execute\n"
        "app = typer.Typer(); app.command()(augment.run)\n"
        "assert execute(app, 'spai-train', ['--help']) == 0\n"
        "sys.exit(execute(app, 'spai-train', ['images.csv', '--output', sys.argv[1]]))"
    )
    command_line = [sys.executable, "-c", code, str(tmp_path / "o")]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    sentence = "spai-train: torch is not installed: pip install '.[train]'\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_torch_has_its_threads_back(augment: Augmenting, table: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    assert augment(table, "--output", tmp_path / "o", "--size", 32).code == 0
    assert torch.get_num_threads() == before
