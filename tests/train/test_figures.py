"""No text leaves a figure, whatever it names: every plot that the project draws."""

import itertools
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_train.data.perturb import NONE, Kind, Perturbation
from spai_train.data.table import Row
from spai_train.evaluation import plots
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.protocol import Protocol, measure
from spai_train.evaluation.scored import ScoredTable
from spai_train.evaluation.tsne import draw
from spai_train.training.curves import curves
from tests.support.figures import cut_off
from tests.support.scored import table_of

LONG = "a_generator_whose_name_takes_as_much_room_as_a_sentence_does_or_a_little_more"


def perturbed(*kinds: tuple[Kind, float]) -> Figure:
    metrics = {"auc": Interval(0.93, 0.9, 0.95), "balanced_accuracy": Interval(0.8, 0.75, 0.85)}
    return plots.robustness([(NONE, metrics), *((Perturbation(*kind), metrics) for kind in kinds)])


def scored(generators: int, name: str) -> ScoredTable:
    return table_of([("real", 0, [0.2, 0.3]), *((f"{index} {name}", 1, [0.4, 0.9]) for index in range(generators))])


def rocs(generators: int, name: str) -> Figure:
    table = scored(generators, name)
    return plots.roc(table, measure(table, Protocol.POOLED, 1e-12 / 3, resamples=2, seed=0))


def mean_rocs(detectors: int) -> Figure:
    table = scored(2, LONG)
    found = measure(table, Protocol.POOLED, 0.5, resamples=2, seed=0)
    return plots.mean_rocs({f"{index} {LONG}": (table, found) for index in range(detectors)})


def histogram() -> Figure:
    table = MagicMock(scores_of=lambda _: np.broadcast_to(0.5, 12_345_678))  # of which a ScoredTable takes a minute
    return plots.histogram(table, 1 / 3)


def history(tests: int, name: str = LONG) -> Figure:
    metrics = {"epoch": 1, "train_loss": 0.7, "val_loss": 0.6, "val_auc": 0.5, "val_accuracy": 0.5}
    test = {f"test_{index}{name}_{metric}": 0.5 for index in range(tests) for metric in ("loss", "auc", "accuracy")}
    return curves([{**metrics, **test}, {**metrics, **test, "epoch": 2}])


def embedded(sources: int, name: str) -> Figure:
    rows = [
        Row("a.png", Path("a.png"), label, "", f"{index} {name}")
        for index, label in itertools.product(range(sources), (0, 1))
    ]
    return draw(rows, np.random.default_rng(0).normal(size=(len(rows), 2)), 30)


FIGURES = {
    "robustness to JPEG": lambda: perturbed((Kind.JPEG, 90), (Kind.JPEG, 70)),
    "robustness to two kinds": lambda: perturbed((Kind.JPEG, 90), (Kind.NOISE, 5)),
    "robustness to many levels": lambda: perturbed(*((Kind.JPEG, quality) for quality in range(5, 100, 5))),
    "robustness to all kinds": lambda: perturbed(*((kind, 3) for kind in Kind if kind is not Kind.NONE)),
    "ROC of one generator": lambda: rocs(1, "g"),
    "ROC of many generators": lambda: rocs(45, LONG),
    "mean ROC of many detectors": lambda: mean_rocs(25),
    "histogram of many images": histogram,
    "curves without tests": lambda: history(0),
    "curves with many tests": lambda: history(4),
    "map of few sources": lambda: embedded(2, "camera"),
    "map of many sources": lambda: embedded(30, LONG),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_leaves_the_figure(name: str) -> None:
    assert cut_off(FIGURES[name]()) == []


def test_a_legend_that_is_too_wide_is_found() -> None:
    figure = Figure(figsize=(2, 2))
    figure.legend(handles=[Line2D([], [], label="w" * 60)])
    assert cut_off(figure) == ["w" * 60, "the legend"]
