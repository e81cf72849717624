"""A run's folder: whose it is, what a kill leaves of it, what is said in it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spai_runtime.errors import OutputError
from spai_train.data.table import TableError
from spai_train.sections import RecipeError
from spai_train.training.run import RunFolder, State
from spai_train.training.settings import RESUMABLE, DataSettings, TrainingSettings

SETTINGS = TrainingSettings()
STATE = State(
    step=7,
    totals={"steps": 1, "sums": {"train_loss": 0.5}, "unreadable": {}},
    history=[{"epoch": 1, "train_loss": 0.75}],
    stopping={"best": 0.5, "best_epoch": 1, "waited": 0},
    stopped=False,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.check("fit", SETTINGS, resume=False)
    folder.begin("fit", SETTINGS)
    return folder


def test_a_folder_is_made_and_holds_the_whole_recipe(folder: RunFolder) -> None:
    text = (folder.path / "recipe.yaml").read_text()
    assert text.startswith(f"# {SETTINGS.rates}\nfit:\n  seed: 0\n")
    assert "    learning_rate: 0.0005\n" in text


def test_a_run_is_not_overwritten(folder: RunFolder) -> None:
    with pytest.raises(OutputError, match="holds a run: --resume goes on with it, or name another --output"):
        folder.check("fit", SETTINGS, resume=False)
    folder.check("fit", SETTINGS, resume=True)


def test_another_recipe_is_refused_by_its_keys(folder: RunFolder) -> None:
    other = replace(SETTINGS, seed=1, batch_size=8, optimizer=replace(SETTINGS.optimizer, clip=1.0), log_every=3)
    with pytest.raises(RecipeError, match=r"was run with another seed, batch_size, optimizer\.clip: resume with"):
        folder.check("fit", other, resume=True)
    with pytest.raises(RecipeError, match="has no section `pretrain`"):
        folder.check("pretrain", SETTINGS, resume=True)


def test_what_moves_no_weight_may_change(folder: RunFolder) -> None:
    data = DataSettings(workers=3, prefetch=5, root="elsewhere", store="images.lmdb")
    other = replace(SETTINGS, data=data, save_every=4, trackers=(), log_every=3)
    folder.check("fit", other, resume=True)
    folder.begin("fit", other)
    assert "workers: 3" in (folder.path / "recipe.yaml").read_text()
    assert {"data.workers", "data.store", "save_every"} < RESUMABLE


def test_a_state_comes_back(folder: RunFolder) -> None:
    tensors = {"model": {"weight": torch.arange(3.0)}, "optimizer": {"state": {}}, "scaler": None}
    folder.save_state(STATE, tensors)
    restored = folder.restore()
    assert restored is not None
    assert restored[0] == STATE
    assert torch.equal(restored[1]["model"]["weight"], torch.arange(3.0))
    assert restored[1].keys() == tensors.keys()


def test_before_the_first_state_there_is_none(folder: RunFolder) -> None:
    folder.add_metrics({"epoch": 1})
    assert folder.restore() is None
    assert (folder.path / "metrics.jsonl").read_text() == ""


def test_metrics_after_the_state_are_taken_back(folder: RunFolder) -> None:
    folder.add_metrics(STATE.history[0])
    folder.save_state(STATE, {})
    folder.add_metrics({"epoch": 2, "train_loss": 0.25})
    folder.restore()
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == STATE.history


def test_a_file_that_is_cut_short_leaves_the_one_before(folder: RunFolder) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise TableError("in the middle")

    folder.replace("notes.txt", lambda path: path.write_text("whole"))
    with pytest.raises(TableError):
        folder.replace("notes.txt", fail)
    assert (folder.path / "notes.txt").read_text() == "whole"


def test_a_message_is_a_line_whatever_it_holds(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.log("skipped a\nb-\udce9.png")
    assert capsys.readouterr().err == "skipped a b-\\udce9.png\n"
    (line,) = (folder.path / "log.txt").read_text().splitlines()
    assert line[19:] == " skipped a b-\\udce9.png"


def test_an_image_is_named_once(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.log_skipped({"b.png": "empty", "a.png": "truncated"})
    folder.log_skipped({"b.png": "empty", "c.png": "no image"})
    assert capsys.readouterr().err.splitlines() == [
        "skipped a.png: truncated",
        "skipped b.png: empty",
        "skipped c.png: no image",
    ]


def test_only_the_first_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run", writes=False)
    folder.check("fit", SETTINGS, resume=False)
    folder.begin("fit", SETTINGS)
    folder.save_state(STATE, {})
    folder.add_metrics({"epoch": 1})
    folder.log("something")
    assert folder.restore() is None
    assert not folder.path.exists()
    assert capsys.readouterr().err == ""
