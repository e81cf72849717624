"""The tutorial's commands, in their order and as they stand there, on simulated data that takes seconds.

`SMALLER` is what the tutorial names at its end: fewer and smaller scenes, generators that have hardly learned, and a
smaller model.
"""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from spai_export.cli import main as spai_export
from spai_runtime.cli.run import main as spai_run
from spai_train.cli import main as spai_train
from spai_train.data.table import read_table
from tests.support import documents

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
MAIN: dict[str, Callable[[Sequence[str]], int]] = {
    "spai-train": spai_train,
    "spai-export": spai_export,
    "spai-run": spai_run,
}
MODEL = (
    *("tile_size=32", "tile_stride=32", "mask_radius=4", "patch_size=8", "width=48", "depth=2", "heads=2"),
    *("blocks=[0,1]", "projection=16", "attention_width=16"),
)
TRAINING = (*(f"model.{key}" for key in MODEL), "schedule.epochs=1", "schedule.warmup_epochs=0", "data.workers=0")
SCENES = (
    *("splits.all={real: 600, seen: 60}", "splits.other.unseen=9"),  # 600, for a rate of 5% asks for 119 of a fifth
    *("finish.sides=[64,80]", "generator.width=8", "generator.steps=2", "generator.batch_size=2", "generator.crops=6"),
    *("generator.crop_size=64", "workers=1"),
)
FOLDERS = {"camera": 600, "generated": 60, "other": 9}
SMALLER = {
    "simulate": [word for key in SCENES for word in ("--set", key)],
    "pretrain": [word for key in TRAINING for word in ("--set", key)],
    "fit": [word for key in TRAINING for word in ("--set", key)],
    "baselines": ["--workers", "1"],
}


def do(command: str, folder: Path) -> None:
    """One line: ours in this process, which has torch already, and a shell for the rest."""
    words = shlex.split(command)
    if words[0] not in MAIN:
        done = documents.run(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return
    assert MAIN[words[0]]([*words[1:], *SMALLER.get(words[1], [])]) == 0, command


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, when the last command has run."""
    folder = tmp_path_factory.mktemp("tutorial")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in documents.lines(PAGE, "bash"):
            do(command, folder)
    return folder


def test_the_folders_are_those_of_the_recipe(desk: Path) -> None:
    assert {name: len(list((desk / name).iterdir())) for name in FOLDERS} == FOLDERS
    assert not list((desk / "simulated" / "images").iterdir())
    counts = Counter((row.split, row.label) for row in read_table(desk / "images.csv"))
    assert counts.keys() == {(split, label) for split in ("train", "val", "calibration", "test") for label in (0, 1)}


def test_the_detector_is_the_readers_own(desk: Path) -> None:
    manifest = json.loads((desk / "mine" / "detector.json").read_text("utf-8"))
    assert (manifest["name"], manifest["detector"]) == ("mine", "spai")
    assert "demo" not in manifest["notice"]
    assert "of images like those that it was measured on" in manifest["notice"]
    assert "the split calibration of images.csv" in manifest["threshold"]["source"]


def test_the_test_split_is_measured_under_each_perturbation(desk: Path) -> None:
    found = json.loads((desk / "runs" / "test" / "metrics.json").read_text("utf-8"))
    assert [result["perturbation"] for result in found["results"]] == ["none", "jpeg 60", "scale 0.5"]
    assert {row["source"] for row in found["results"][0]["sources"]} == {"camera", "generated", "other"}
    assert (desk / "runs" / "baselines" / "baselines.json").is_file()


def test_the_report_is_there(desk: Path) -> None:
    assert (desk / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_every_image_has_a_score(desk: Path) -> None:
    with (desk / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(FOLDERS.values())
    assert all(row["label"] in ("ai", "real") and not row["error"] for row in rows)


def test_the_page_names_what_the_tests_set() -> None:
    for key in ("finish.sides=[64,80]", "model.tile_size=32", "schedule.epochs=1"):
        assert key in PAGE
