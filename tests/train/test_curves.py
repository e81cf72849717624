"""Curves show the numbers of a history, each at its epoch."""

from pathlib import Path

import pytest
from PIL import Image

from spai_train.training.curves import curves, draw_curves

HISTORY = [
    {"epoch": 1, "train_loss": 0.7, "val_loss": 0.6, "val_auc": 0.5, "val_accuracy": 0.5},
    {"epoch": 2, "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.75},
    {"epoch": 3, "train_loss": 0.3, "val_loss": 0.5, "val_auc": 0.9, "val_accuracy": 0.8},
]
Line = tuple[list[float], list[float]]


def panels(history: list[dict[str, float]]) -> list[dict[str, Line]]:
    """By panel and label: epochs and values."""
    return [
        {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
        for axes in curves(history).axes
    ]


def test_losses_lie_left_and_shares_right() -> None:
    losses, shares = panels(HISTORY)
    assert losses == {"training": ([1, 2, 3], [0.7, 0.5, 0.3]), "validation": ([1, 2, 3], [0.6, 0.4, 0.5])}
    assert shares == {"AUC": ([1, 3], [0.5, 0.9]), "accuracy at 0.5": ([1, 2, 3], [0.5, 0.75, 0.8])}


def test_tests_have_their_losses_beside_the_others_and_a_panel_of_their_own() -> None:
    history = [
        {**HISTORY[0], "test_a_b_loss": 0.9, "test_a_b_auc": 0.6, "test_a_b_accuracy": 0.5, "test_a_b_ap": 0.1},
        {**HISTORY[1], "test_a_b_loss": 0.8, "test_c_accuracy": 0.25, "test_c_unreadable": 0},
    ]
    losses, _, tests = panels(history)
    assert losses["a_b, loss"] == ([1, 2], [0.9, 0.8])
    assert tests == {
        "a_b, AUC": ([1], [0.6]),
        "a_b, accuracy at 0.5": ([1], [0.5]),
        "c, accuracy at 0.5": ([2], [0.25]),
    }


def test_a_training_without_validation_has_one_panel() -> None:
    assert panels([{"epoch": 1, "train_loss": 0.7}]) == [{"training": ([1], [0.7])}]


@pytest.mark.parametrize(("epochs", "width"), [(1, 1320), (3, 1320)])
def test_they_are_a_picture_of_any_name(tmp_path: Path, epochs: int, width: int) -> None:
    path = tmp_path / "curves.png.partial"
    draw_curves(path, HISTORY[:epochs])
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (width, 480))
