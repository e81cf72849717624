"""From folders of images to scores, each command on what the one before has left, on simulated data and a small model.

The control is the same training on shuffled labels: what it reaches is luck, and the detector must reach more.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from spai_export.cli import main as spai_export
from spai_runtime.cli.run import main as spai_run
from spai_train.cli import main as spai_train
from spai_train.data.table import read_table

RECIPE = """
simulate:
  seed: 11
  workers: 1
  seen: [{upsampling: transposed, factor: 8}, {upsampling: nearest, factor: 8}]
  generator: {width: 8, steps: 2, batch_size: 2, crops: 6, crop_size: 64}
  finish: {sides: [72, 96], rescaled: 0, quality: [90, 95]}
  splits: {all: {real: 120, seen: 120}}

pretrain: &small
  seed: 1
  device: cpu
  data: {workers: 0}
  batch_size: 16
  model: {tile_size: 64, tile_stride: 64, mask_radius: 6, patch_size: 8, width: 48, depth: 2, heads: 2, blocks: [0, 1],
    projection: 16, attention_width: 16, attention_heads: 2, dropout: 0.1, drop_path: 0}
  augmentation: {crop: [1, 1], horizontal_flip: 0.5, vertical_flip: 0, rotation: 0, blur: 0, noise: 0, jpeg: 0}
  initial: whitened
  optimizer: {learning_rate: 1e-4, layer_decay: 1.0}
  schedule: {epochs: 3, warmup_epochs: 1, warmup_rate: 1e-5}
  trackers: []

fit:
  <<: *small
  name: chain
  views: 1
  initial: fan_in
  optimizer: {learning_rate: 2e-3, weight_decay: 0.01, clip: 1.0}
  schedule: {epochs: 8, warmup_epochs: 1, warmup_rate: 1e-5}
  stopping: {metric: val_loss, patience: 3}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, and with images as a user has them: real/ and a folder for each generator."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert spai_train(["simulate", str(folder / "simulated"), "--recipe", str(folder / "recipe.yaml")]) == 0
    for row in read_table(folder / "simulated" / "images.csv"):
        place = folder / row.source
        place.mkdir(exist_ok=True)
        shutil.move(row.path, place)
    return folder


@pytest.fixture(scope="module")
def table(desk: Path) -> Path:
    path = desk / "images.csv"
    folders = ["--real", desk / "real", "--fake", desk / "transposed-x8", "--fake", desk / "nearest-x8"]
    assert spai_train(["index", *map(str, folders), "--output", str(path), "--shares", "0.6,0.15,0.25"]) == 0
    return path


def trained(desk: Path, table: Path, name: str) -> Path:
    """pretrain and fit on a table; :returns: the best checkpoint"""
    shared = ["--recipe", str(desk / "recipe.yaml"), "--data", str(table)]
    assert spai_train(["pretrain", *shared, "--output", str(desk / f"{name}-pretrain")]) == 0
    pretrained = ["--pretrained", str(desk / f"{name}-pretrain" / "last.pth")]
    assert spai_train(["fit", *shared, *pretrained, "--output", str(desk / name)]) == 0
    return desk / name / "best.safetensors"


@pytest.fixture(scope="module")
def checkpoint(desk: Path, table: Path) -> Path:
    return trained(desk, table, "fit")


@pytest.fixture(scope="module")
def engine(desk: Path, checkpoint: Path) -> Path:
    assert spai_export(["--ckpt", str(checkpoint), "--output", str(desk / "engine")]) == 0
    return desk / "engine"


def mean_auc(folder: Path) -> float:
    (result,) = json.loads((folder / "metrics.json").read_text())["results"]
    return float(result["mean"]["auc"]["value"])


def evaluated(desk: Path, table: Path, name: str, *detector: object) -> float:
    output = desk / f"evaluation-{name}"
    assert spai_train(["evaluate", str(table), "--output", str(output), *map(str, detector)]) == 0
    return mean_auc(output)


def test_the_detector_beats_its_shuffled_control(desk: Path, table: Path, checkpoint: Path) -> None:
    shuffled = shuffle_labels(table)
    control = evaluated(desk, table, "control", "--ckpt", trained(desk, shuffled, "control"))
    reached = evaluated(desk, table, "ckpt", "--ckpt", checkpoint)
    print(f"AUC {reached:.3f}, on shuffled labels {control:.3f}")  # noqa: T201
    assert reached > 0.9
    assert control < 0.7
    assert reached > control + 0.2


def test_the_exported_detector_scores_as_the_checkpoint_does(desk: Path, table: Path, engine: Path) -> None:
    assert evaluated(desk, table, "engine", "--engine", engine) == pytest.approx(mean_auc(desk / "evaluation-ckpt"))


def test_spai_run_scores_the_table(desk: Path, table: Path, engine: Path) -> None:
    assert spai_run([str(table), "--split", "test", "--engine", str(engine), "--output", str(desk / "s.csv")]) == 0
    with (desk / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["class"]) for row in rows])
    scores = np.array([float(row["score"]) for row in rows])
    assert len(rows) == 120
    assert roc_auc_score(labels, scores) > 0.9


def shuffle_labels(table: Path) -> Path:
    """The table with the classes of training and validation dealt out anew; the test split stays as it is."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        chosen = [row for row in rows if row["split"] == split]
        for row, label in zip(chosen, rng.permutation([row["class"] for row in chosen]), strict=True):
            row["class"] = str(label)
    path = table.with_name("shuffled.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
