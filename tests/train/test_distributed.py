"""Two processes on the CPU compute what one does, whatever is broken on one of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spai_train.fit import FitRecipe, fit
from spai_train.recipe import dump_recipe
from tests.support.training import fit_recipe, largest_difference, metrics_of, tensors, write_labelled

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> FitRecipe:
    """Nothing is drawn in a step, and one image of each split is broken."""
    table = write_labelled(tmp_path_factory.mktemp("data") / "set")
    for name in ("003.png", "027.png"):
        (table.parent / "images" / name).write_text("no image")
    return fit_recipe(
        table, model__dropout=0.0, optimizer__eps=1e-4, freeze=False, accumulate=2, trackers=["tensorboard"]
    )


@pytest.fixture(scope="module")
def alone(recipe: FitRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, and in `half` how it stood after two epochs."""
    path = tmp_path_factory.mktemp("alone")

    def keep(epoch: int, _: object) -> None:
        if epoch == 2:
            shutil.copytree(path / "run", path / "half")

    fit(recipe, path / "run", on_epoch=keep)
    return path


@pytest.fixture(scope="module")
def together(recipe: FitRecipe, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two processes: a `new` one, and one that goes on from what one process had `begun`."""
    path = tmp_path_factory.mktemp("together")
    shutil.copytree(alone / "half", path / "begun")
    (path / "recipe.yaml").write_text(dump_recipe("fit", recipe))
    runs = [launch(path / "recipe.yaml", path / name) for name in ("new", "begun")]  # side by side
    for run in runs:
        _, said = run.communicate(timeout=300)
        assert run.returncode == 0, said
    return path


def launch(recipe: Path, output: Path) -> subprocess.Popen[str]:
    """Two processes, which meet at a port that is free."""
    here = str(Path(__file__).parents[1] / "support" / "fit_here.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*launcher, here, str(recipe), str(output)], stderr=subprocess.PIPE, encoding="utf-8", env=environment
    )


@pytest.mark.parametrize(("name", "epochs"), [("new", {1, 2, 3, 4}), ("begun", {3, 4})])
def test_two_processes_end_as_one(name: str, epochs: set[int], alone: Path, together: Path) -> None:
    for file in ("last.safetensors", "best.safetensors"):
        assert largest_difference(tensors(together / name / file), tensors(alone / "run" / file)) < 1e-5
    for ours, expected in zip(metrics_of(together / name), metrics_of(alone / "run"), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
        assert (ours["unreadable"], ours["val_unreadable"]) == (1, 1)
    log = (together / name / "log.txt").read_text()
    _, said = log.split("on cpu:0, 2 process(es)")
    assert [said.count(f"epoch {epoch} of 4: ") for epoch in range(1, 5)] == [epoch in epochs for epoch in range(1, 5)]
    assert said.count("skipped images/003.png") == 1


def test_one_process_tells_the_trackers(together: Path) -> None:
    assert len(list((together / "new" / "spai").glob("events.out.tfevents.*"))) == 1
