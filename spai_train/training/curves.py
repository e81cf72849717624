"""The curves of a run: losses and validation metrics over the epochs, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spai_train.evaluation.legends import short

LOSSES = {"train_loss": "training", "val_loss": "validation"}
SHARES = {"val_auc": "AUC", "val_ap": "average precision", "val_accuracy": "accuracy at 0.5"}


def draw_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """:param history: the metrics of each epoch, with its number as `epoch`"""
    curves(history).savefig(path, format="png", dpi=120)


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draws losses on the left; then the validation's other metrics, and those of the tests, where there are any."""
    tests = list(dict.fromkeys(name for metrics in history for name in metrics if name.startswith("test_")))
    panels = [
        (LOSSES | _of_tests(tests, {"_loss": "loss"}), "loss"),
        (SHARES, "validation"),
        (_of_tests(tests, {"_auc": "AUC", "_accuracy": "accuracy at 0.5"}), "tests"),
    ]
    shown = [panel for panel in panels if any(name in metrics for metrics in history for name in panel[0])]
    figure = Figure(figsize=(5.5 * len(shown), 4), layout="constrained")
    for index, (names, title) in enumerate(shown, start=1):
        _panel(figure.add_subplot(1, len(shown), index), history, names, title)
    return figure


def _of_tests(names: Sequence[str], metrics: Mapping[str, str]) -> dict[str, str]:
    """The names of the tests' metrics that end as one of these, and what their lines are called."""
    found = [(name, end) for end in metrics for name in names if name.endswith(end)]
    return {name: f"{short(name.removeprefix('test_').removesuffix(end))}, {metrics[end]}" for name, end in found}


def _panel(axes: Axes, history: Sequence[Mapping[str, float]], names: Mapping[str, str], title: str) -> None:
    for name, label in names.items():
        points = [(metrics["epoch"], metrics[name]) for metrics in history if name in metrics]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
