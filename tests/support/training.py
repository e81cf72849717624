"""What tests of training share: a small labelled folder that a tiny SPAI can learn, and settings that take seconds."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from spai_train.fit import FitRecipe, fit
from spai_train.pretrain import PretrainRecipe
from spai_train.recipe import load_recipe

MODEL = {
    "tile_size": 32,
    "tile_stride": 32,
    "mask_radius": 4,
    "patch_size": 8,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp_ratio": 2.0,
    "blocks": [0, 1],
    "projection": 8,
    "attention_width": 8,
    "attention_heads": 2,
    "head_ratio": 2,
    "dropout": 0.1,
    "drop_path": 0.0,
}


def write_labelled(folder: Path, *, train: int = 24, validation: int = 12, seed: int = 0) -> Path:
    """Real images are noise on a ramp; generated ones have a period of two pixels too.

    :returns: images.csv, classes in turn
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(train + validation):
        label, split = index % 2, "train" if index < train else "val"
        name = f"images/{index:03d}.png"
        Image.fromarray(picture(rng, generated=bool(label))).save(folder / name)
        rows.append((name, label, split, "grid" if label else "camera"))
    path = folder / "images.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "class", "split", "source"), *rows])
    return path


def picture(rng: np.random.Generator, *, generated: bool, side: int = 72) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(side, side, 3) uint8"""
    ramp = np.linspace(60, 180, side)[:, None, None] + rng.normal(0, 6, (side, side, 3))
    grid = 14 * (-1.0) ** np.add.outer(np.arange(side), np.arange(side)) if generated else np.zeros((side, side))
    return np.clip(ramp + grid[:, :, None], 0, 255).astype(np.uint8)


def fit_recipe(table: Path, **overrides: Any) -> FitRecipe:
    """A fit of seconds: keys with dots written as `__`."""
    small = {
        "data.tables": [str(table)],
        "data.workers": 0,
        "device": "cpu",
        "model": dict(MODEL),
        "initial": "fan_in",
        "batch_size": 8,
        "views": 2,
        "augmentation": {"crop": [1, 1], "rotation": 0, "blur": 0, "noise": 0, "jpeg": 0},
        "optimizer.learning_rate": 3e-3,
        "schedule.epochs": 4,
        "schedule.warmup_epochs": 1,
        "trackers": [],
    }
    return load_recipe("spai", "fit", FitRecipe, {**small, **dotted(overrides)})


def pretrain_recipe(table: Path, **overrides: Any) -> PretrainRecipe:
    """A pre-training of seconds, of the backbone that `fit_recipe` uses."""
    small = {
        "data.tables": [str(table)],
        "data.workers": 0,
        "device": "cpu",
        "model": dict(MODEL),
        "batch_size": 8,
        "schedule.base_batch_size": None,
        "schedule.epochs": 2,
        "schedule.warmup_epochs": 1,
        "trackers": [],
    }
    return load_recipe("spai", "pretrain", PretrainRecipe, {**small, **dotted(overrides)})


def dotted(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in overrides.items()}


def resumed_run_ends_as_whole(recipe: FitRecipe, folder: Path) -> bool:
    """Whether a run that was interrupted after its first epoch and gone on with has the weights of one left alone."""
    fit(recipe, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, folder / "cut", on_epoch=_interrupt)
    fit(recipe, folder / "cut", resume=True)
    return same(*(tensors(folder / run / "last.safetensors") for run in ("whole", "cut")))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def tensors(path: Path) -> dict[str, Tensor]:
    """Of a checkpoint of `fit`, read by safetensors itself."""
    return load_file(path)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def metrics_of(run: Path) -> list[dict[str, float]]:
    """The epochs in metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def contents(run: Path) -> dict[str, bytes]:
    """Of every file of a run but its log, which says when."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "log.txt")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}
