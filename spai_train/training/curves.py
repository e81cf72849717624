"""The curves of a run: losses and validation metrics over the epochs, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LOSSES = {"train_loss": "training", "val_loss": "validation"}
SHARES = {"val_auc": "AUC", "val_ap": "average precision", "val_accuracy": "accuracy at 0.5"}


def draw_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """:param history: metrics of each epoch, `epoch` among them"""
    curves(history).savefig(path, format="png", dpi=120)


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Losses on the left; the validation's other metrics on the right, where there are any."""
    panels = [(LOSSES, "loss")]
    if any(name in metrics for metrics in history for name in SHARES):
        panels.append((SHARES, "validation"))
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for index, (names, title) in enumerate(panels, start=1):
        _panel(figure.add_subplot(1, len(panels), index), history, names, title)
    return figure


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
