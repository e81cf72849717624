"""Early stopping, and a sentence for the user when a training over-fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Metric = Literal["val_loss", "val_auc", "val_ap", "val_accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)

RISE = 0.1  # of the validation loss above its minimum, relative: beyond what it wobbles by from epoch to epoch
RISEN_EPOCHS = 3  # on end: one bad epoch is no trend


@dataclass(frozen=True)
class StoppingSettings:
    """A recipe's `stopping`: what the best epoch is, and when to give up waiting for a better one.

    :param metric: Epochs are compared by this metric of the validation.
    :param patience: Training stops after so many epochs without a better one; null never stops it.
    :param min_delta: A metric must be better by more than this to count as improved.
    """

    metric: Metric = "val_loss"
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it is at least 1 epoch, or null to never stop")


@dataclass(frozen=True)
class Verdict:
    """What follows from an epoch: whether its weights are the best so far, and whether it was the last."""

    improved: bool
    stop: bool


class EarlyStopping:
    """Follows a metric over the epochs.

    :ivar best: the metric of `best_epoch`; both are None before an epoch whose metric is a finite number
    :ivar waited: how many epochs have passed since the best
    """

    def __init__(self, settings: StoppingSettings) -> None:
        self.settings = settings
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0

    def update(self, epoch: int, metrics: Mapping[str, float]) -> Verdict:
        """Takes the next epoch's metrics, with `settings.metric` among them; if that is no number, it is no better."""
        value = metrics[self.settings.metric]
        improved = self._improves(value)
        if improved:
            self.best, self.best_epoch = value, epoch
        self.waited = 0 if improved else self.waited + 1
        patience = self.settings.patience
        return Verdict(improved, stop=patience is not None and self.waited >= patience)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, for JSON."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = value - self.best if higher_is_better(self.settings.metric) else self.best - value
        return gain > self.settings.min_delta


def higher_is_better(metric: Metric) -> bool:
    """Whether a higher value is better, which holds for all metrics but the loss."""
    return metric != "val_loss"


def gap(history: Sequence[tuple[int, Mapping[str, float]]]) -> str | None:
    """One sentence for the user when training over-fits, else None.

    A training over-fits when the last RISEN_EPOCHS validation losses are all above the minimum before them by more than
    RISE, while the training loss fell.

    :param history: the metrics of the epochs in order, `train_loss` and `val_loss` among them
    """
    if len(history) <= RISEN_EPOCHS:
        return None
    lowest, best = min(history, key=lambda entry: entry[1]["val_loss"])
    last, now = history[-1]
    limit = (1 + RISE) * best["val_loss"]
    risen = all(metrics["val_loss"] > limit for _, metrics in history[-RISEN_EPOCHS:])
    if not risen or now["train_loss"] >= best["train_loss"]:
        return None
    return (
        f"over-fitting: from epoch {lowest} to {last} the training loss fell from {best['train_loss']:.4g} to "
        f"{now['train_loss']:.4g} while the validation loss rose from {best['val_loss']:.4g} to {now['val_loss']:.4g}: "
        f"epochs near {lowest} are the ones to keep, and more images, stronger augmentation or a smaller learning "
        "rate would help"
    )
