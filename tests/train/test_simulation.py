"""A simulated folder: what its table says is there, and all of it follows from the seed."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from spai_train.data.table import read_table
from spai_train.recipe import load_recipe
from spai_train.simulation import folder as module
from spai_train.simulation.folder import Simulation, simulate, train_generators
from spai_train.simulation.generators import Generator

TINY = """
simulate:
  seed: 3
  workers: 1
  seen: [{upsampling: laplacian, factor: 4}, {upsampling: transposed, factor: 8}]
  unseen: [{upsampling: bilinear, factor: 4}]
  generator: {width: 8, steps: 2, batch_size: 2, crops: 6, crop_size: 32}
  finish: {sides: [64, 72]}
  splits: {train: {real: 3, seen: 4}, test: {real: 2, seen: 2, unseen: 1}, calibration: {real: 2}}
  examples: [{sides: [40, 48]}, {sides: [50, 60], jpeg: true}]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return load_recipe(path, "simulate", Simulation)


@pytest.fixture(scope="module")
def folder(tiny: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tiny, tmp_path_factory.mktemp("simulated")).parent


SPLITS = [("train", 0, 3), ("train", 1, 4), ("test", 0, 2), ("test", 1, 3), ("calibration", 0, 2)]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_table_holds_every_scene_as_png_and_jpeg(folder: Path) -> None:
    rows = read_table(folder / "images.csv")
    assert Counter((row.split, row.label, row.path.suffix) for row in rows) == {
        (split, label, suffix): count for split, label, count in SPLITS for suffix in (".png", ".jpg")
    }
    for row in rows:
        with Image.open(row.path) as image:
            assert 64 <= min(image.size) <= max(image.size) <= 72
            assert image.format == {".png": "PNG", ".jpg": "JPEG"}[row.path.suffix]


def test_a_scene_is_written_in_the_formats_that_are_asked_for(folder: Path, tiny: Simulation, tmp_path: Path) -> None:
    simulate(replace(tiny, formats=("jpeg",), examples=()), tmp_path)
    both, one = digests(folder), digests(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "images.csv", "jpeg.csv"}
    assert (tmp_path / "images.csv").read_bytes() == (tmp_path / "jpeg.csv").read_bytes()
    images = {digest for name, digest in one.items() if name.startswith("images/")}
    assert len(images) == 14
    assert images == {digest for name, digest in both.items() if name.startswith("images/") and name.endswith(".jpg")}


def test_the_tables_of_the_formats_part_the_whole(folder: Path) -> None:
    whole = {row.name for row in read_table(folder / "images.csv")}
    png, jpeg = ({row.name for row in read_table(folder / f"{form}.csv")} for form in ("png", "jpeg"))
    assert png | jpeg == whole
    assert {Path(name).suffix for name in png} == {".png"}
    assert {Path(name).suffix for name in jpeg} == {".jpg"}


def test_unseen_generators_are_where_the_recipe_puts_them(folder: Path) -> None:
    rows = read_table(folder / "images.csv")
    sources = {split: {row.source for row in rows if row.split == split} for split in ("train", "test", "calibration")}
    seen = {"real", "laplacian-x4", "transposed-x8"}
    assert sources == {"train": seen, "test": seen | {"bilinear-x4"}, "calibration": {"real"}}
    assert all((row.source == "real") == (row.label == 0) for row in rows)


def test_no_two_files_are_alike(folder: Path) -> None:
    found = digests(folder / "images")
    assert len(set(found.values())) == len(found) == 28


def test_examples_lie_beside(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "examples").iterdir()) == [
        "generated_1.png",
        "generated_2.jpg",
        "real_1.png",
        "real_2.jpg",
    ]


def test_the_same_seed_gives_the_same_files(tiny: Simulation, folder: Path, tmp_path: Path) -> None:
    simulate(tiny, tmp_path)
    assert digests(tmp_path) == digests(folder)


def test_a_split_is_the_same_whatever_the_others_hold(
    tiny: Simulation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first split of a recipe does not move when those after it grow."""
    generators: dict[str, Generator] = train_generators(tiny)
    monkeypatch.setattr(module, "train_generators", lambda _: generators)
    splits = {"train": tiny.splits["train"], "test": module.Split(real=9)}
    grown = Simulation(**{**vars(tiny), "splits": splits, "examples": ()})
    simulate(grown, tmp_path)
    first = {name: digest for name, digest in digests(tmp_path / "images").items() if int(name[:6]) < 7}
    assert len(first) == 14
    assert first.items() <= digests(folder / "images").items()
