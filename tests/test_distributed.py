"""Two processes on the CPU compute what one does, whatever is broken on one of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import fit_recipe, largest_difference, metrics_of, tensors, write_labelled

from spai_train.fit import FitRecipe, fit
from spai_train.recipe import dump_recipe

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


def launch(recipe: FitRecipe, output: Path) -> subprocess.CompletedProcess[str]:
    """Two processes, which meet at a port that is free."""
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(dump_recipe("fit", recipe))
    here = Path(__file__).with_name("fit_here.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*launcher, str(here), str(path), str(output)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("begun", [False, True])
def test_two_processes_end_as_one(begun: bool, recipe: FitRecipe, alone: Path, tmp_path: Path) -> None:
    """From the start, and going on from what one process has left."""
    run = tmp_path / "run"
    if begun:
        shutil.copytree(alone / "half", run)
    done = launch(recipe, run)
    assert done.returncode == 0, done.stderr
    for name in ("last.safetensors", "best.safetensors"):
        assert largest_difference(tensors(run / name), tensors(alone / "run" / name)) < 1e-5
    for ours, expected in zip(metrics_of(run), metrics_of(alone / "run"), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
        assert (ours["unreadable"], ours["val_unreadable"]) == (1, 1)
    log = (run / "log.txt").read_text()
    assert "on cpu:0, 2 process(es)" in log
    assert all(log.count(f"epoch {epoch} of 4: ") == 1 for epoch in (3, 4))
    assert len(list(run.rglob("events.out.tfevents.*"))) == 1 + begun
