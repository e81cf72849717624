"""Validation against the model itself, an image at a time, and scikit-learn's metrics."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

from spai_train.data.stores import Files
from spai_train.data.table import Row, TableError
from spai_train.detectors.spai.model import SPAI
from spai_train.memory import BatchLimit
from spai_train.training.launch import launch
from spai_train.training.settings import TrainingSettings
from spai_train.training.validate import Validation, validate
from tests.support.images import pixels

SIZES = ((72, 72), (40, 50), (32, 100), (130, 64), (96, 96), (64, 65), (33, 33), (70, 128))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Images of many sizes, the generated ones a little darker."""
    folder = tmp_path_factory.mktemp("images")
    rows = [Row(f"{i}.png", folder / f"{i}.png", i % 2, "val", "s") for i in range(len(SIZES))]
    for seed, (row, (height, width)) in enumerate(zip(rows, SIZES, strict=True)):
        Image.fromarray(pixels(height, width, seed) // (1 + row.label)).save(row.path)
    return rows


def tiles(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of 32 pixels, row by row; five crops where these are fewer than four."""
    bottom, right = image.shape[0] - 32, image.shape[1] - 32
    corners = [(top, left) for top in range(0, bottom + 1, 32) for left in range(0, right + 1, 32)]
    if len(corners) < 4:
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return np.stack([image[top : top + 32, left : left + 32] for top, left in corners])


def scores(model: SPAI, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Logits, an image at a time."""
    views = [torch.from_numpy(tiles(np.asarray(Image.open(row.path)))) for row in rows]
    with torch.no_grad():
        return np.array([model.eval()(part[None]).logit.item() for part in views])


def validated(model: SPAI, rows: Sequence[Row], precision: str = "fp32") -> Validation:
    settings = TrainingSettings(device="cpu", precision=precision, trackers=())  # type: ignore[arg-type]
    return validate(model, rows, Files(), launch(settings, Path("nowhere"), all_train=True))


@pytest.fixture
def model(tiny_model: SPAI, rows: list[Row]) -> SPAI:
    """Its bias moved so that both verdicts occur."""
    model = SPAI(tiny_model.config)
    model.load_state_dict(tiny_model.state_dict())
    logits = scores(model, rows)
    with torch.no_grad():
        model.head.mlp[2].bias -= float(np.median(logits))
        model.head.mlp[2].weight *= 50
        model.head.mlp[2].bias *= 50
    return model


def test_metrics_are_scikit_learns(model: SPAI, rows: list[Row]) -> None:
    logits, labels = scores(model, rows), [row.label for row in rows]
    metrics, unreadable = validated(model, rows)
    assert 0 < np.mean(logits > 0) < 1
    assert unreadable == {}
    assert metrics == pytest.approx(
        {
            "val_loss": log_loss(labels, 1 / (1 + np.exp(-logits))),
            "val_auc": roc_auc_score(labels, logits),
            "val_ap": average_precision_score(labels, logits),
            "val_accuracy": accuracy_score(labels, logits > 0),
            "val_unreadable": 0,
        },
        rel=1e-4,
    )


def test_the_order_of_the_images_is_no_matter(model: SPAI, rows: list[Row]) -> None:
    assert validated(model, rows[::-1]).metrics == pytest.approx(validated(model, rows).metrics, rel=1e-5)


def test_a_loss_of_any_size_is_finite(model: SPAI, rows: list[Row]) -> None:
    with torch.no_grad():
        model.head.mlp[2].bias.fill_(-2000.0)
    loss = validated(model, rows).metrics["val_loss"]
    logits, labels = scores(model, rows), np.array([row.label for row in rows])
    assert loss == pytest.approx(float(np.mean(-logits * labels)), rel=1e-5)


def test_the_precision_is_that_of_the_training(model: SPAI, rows: list[Row]) -> None:
    single, half = (validated(model, rows, precision).metrics["val_loss"] for precision in ("fp32", "bf16"))
    assert half != single
    assert half == pytest.approx(single, rel=0.2)


def test_training_goes_on_as_if_nothing_had_been(model: SPAI, rows: list[Row]) -> None:
    model.train()
    model.encoder.projectors.eval()
    state = torch.random.get_rng_state()
    validated(model, rows)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(part.grad is None for part in model.parameters())


def test_images_that_cannot_be_read_are_left_out_and_named(model: SPAI, rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    broken = [
        rows[0],
        replace(rows[1], path=tmp_path / "text.png"),
        *rows[2:],
        replace(rows[0], path=tmp_path / "gone"),
    ]
    metrics, unreadable = validated(model, broken)
    assert metrics == pytest.approx(validated(model, [rows[0], *rows[2:]]).metrics | {"val_unreadable": 2}, rel=1e-5)
    assert unreadable.keys() == {"1.png", "0.png"}
    assert "not an image" in unreadable["1.png"]
    assert "No such file" in unreadable["0.png"]


def test_one_class_alone_has_no_auc(model: SPAI, rows: list[Row]) -> None:
    metrics = validated(model, rows[::2]).metrics
    assert metrics.keys() == {"val_loss", "val_accuracy", "val_unreadable"}


def test_nothing_to_read_is_a_sentence(model: SPAI, rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none of the 8 validation images can be read; 0\.png: .*No such file"):
        validated(model, [replace(row, path=tmp_path / row.name) for row in rows])


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_batch_of_any_size_scores_the_same(size: int, model: SPAI, rows: list[Row]) -> None:
    seen: list[int] = []
    handle = model.encoder.register_forward_pre_hook(lambda _, views: seen.append(len(views[0])))
    settings = TrainingSettings(device="cpu", trackers=())
    accelerator = launch(settings, Path("nowhere"), all_train=True)
    found = validate(model, rows, Files(), accelerator, BatchLimit(size), "test_x").metrics
    handle.remove()
    assert max(seen) == min(size, sum(seen))
    expected = validated(model, rows).metrics
    assert found == pytest.approx({f"test_x_{name[4:]}": value for name, value in expected.items()}, rel=1e-5)
