"""Early stopping and the warning of over-fitting, on curves written down."""

import json
import math

import pytest

from spai_train.training.stopping import METRICS, EarlyStopping, Metric, StoppingSettings, gap

# A fine-tuning that over-fits: the validation loss is lowest in epoch 7 of 9, the training loss falls throughout.
TRAIN = (0.52, 0.41, 0.34, 0.29, 0.25, 0.21, 0.18, 0.15, 0.13)
VALIDATION = (0.49, 0.42, 0.39, 0.36, 0.34, 0.33, 0.32, 0.36, 0.39)
HISTORY = [
    (epoch, {"train_loss": train, "val_loss": validation})
    for epoch, (train, validation) in enumerate(zip(TRAIN, VALIDATION, strict=True), start=1)
]


def follow(settings: StoppingSettings, values: tuple[float, ...]) -> tuple[list[int], list[int]]:
    """The epochs that improved, and those after which training had stopped."""
    watch, improved, stopped = EarlyStopping(settings), [], []
    for epoch, value in enumerate(values, start=1):
        verdict = watch.update(epoch, {settings.metric: value})
        improved += [epoch] * verdict.improved
        stopped += [epoch] * verdict.stop
    return improved, stopped


@pytest.mark.parametrize(("patience", "stops"), [(None, []), (1, [8, 9]), (2, [9]), (3, [])])
def test_training_stops_after_its_patience(patience: int | None, stops: list[int]) -> None:
    assert follow(StoppingSettings(patience=patience), VALIDATION) == (list(range(1, 8)), stops)


def test_the_best_epoch_is_remembered() -> None:
    watch = EarlyStopping(StoppingSettings())
    assert (watch.best_epoch, watch.best) == (None, None)
    for epoch, metrics in HISTORY:
        watch.update(epoch, metrics)
    assert (watch.best_epoch, watch.best) == (7, 0.32)


@pytest.mark.parametrize("metric", METRICS)
def test_a_loss_is_to_fall_and_all_else_to_rise(metric: Metric) -> None:
    improved, _ = follow(StoppingSettings(metric), (0.5, 0.6, 0.55, 0.4))
    assert improved == ([1, 4] if metric == "val_loss" else [1, 2])


def test_an_improvement_is_more_than_min_delta_over_the_best() -> None:
    """Small steps add up: each is compared with the last that counted."""
    improved, _ = follow(StoppingSettings("val_auc", min_delta=0.25), (0.0, 0.25, 0.375, 0.5, 0.625))
    assert improved == [1, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_improves(value: float) -> None:
    assert follow(StoppingSettings(patience=2), (value, 0.5, value, value)) == ([2], [4])


@pytest.mark.parametrize("epochs", range(9))
def test_it_goes_on_where_it_was_restored(epochs: int) -> None:
    settings = StoppingSettings(patience=2)
    first, second = EarlyStopping(settings), EarlyStopping(settings)
    for epoch, metrics in HISTORY[:epochs]:
        first.update(epoch, metrics)
    second.restore(json.loads(json.dumps(first.state())))
    verdicts = [second.update(epoch, metrics) for epoch, metrics in HISTORY[epochs:]]
    assert [verdict.improved for verdict in verdicts] == [epoch <= 7 for epoch, _ in HISTORY[epochs:]]
    assert [verdict.stop for verdict in verdicts] == [epoch == 9 for epoch, _ in HISTORY[epochs:]]
    assert second.state() == {"best": 0.32, "best_epoch": 7, "waited": 2}


def test_patience_of_no_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 epoch"):
        StoppingSettings(patience=0)


def grown(*validation: float, train: float = 0.1) -> list[tuple[int, dict[str, float]]]:
    """HISTORY with more epochs."""
    return HISTORY + [
        (epoch, {"train_loss": train, "val_loss": loss}) for epoch, loss in enumerate(validation, start=10)
    ]


def test_overfitting_is_named_with_its_epochs_and_numbers() -> None:
    assert gap(grown(0.41)) == (
        "over-fitting: from epoch 7 to 10 the training loss fell from 0.18 to 0.1 while the validation loss rose from "
        "0.32 to 0.41: epochs near 7 are the ones to keep, and more images, stronger augmentation or a smaller "
        "learning rate would help"
    )


@pytest.mark.parametrize(
    "history",
    [
        [],
        HISTORY[:1],
        HISTORY,  # two epochs are no trend
        grown(0.35),  # under 110% of 0.32
        grown(0.41, 0.34),  # and back
        grown(0.41, 0.31),  # a new minimum
        grown(0.41, train=0.19),  # the training itself got worse
        grown(math.nan),
    ],
)
def test_nothing_is_said_of_other_curves(history: list[tuple[int, dict[str, float]]]) -> None:
    assert gap(history) is None
