"""Plots show the numbers that they are given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image
from sklearn.metrics import roc_curve

from spai_train.data.perturb import NONE, Kind, Perturbation
from spai_train.evaluation import plots
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.metrics import auc
from spai_train.evaluation.protocol import Protocol, measure
from spai_train.evaluation.results import DPI
from tests.support.scored import SCORES, TABLE, table_of


def rendered(figure: Figure, path: Path) -> tuple[int, int]:
    """Draws it; :returns: the picture's width and height in pixels"""
    figure.savefig(path, dpi=DPI)
    return Image.open(path).size


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def line(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [each for each in axes.lines if label in str(each.get_label())]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_roc_curves_are_those_of_scikit_learn(tmp_path: Path) -> None:
    found = measure(TABLE, Protocol.POOLED, 0.6, resamples=5, seed=0)
    figure = plots.roc(TABLE, found)
    assert rendered(figure, tmp_path / "roc.png") == (12 * DPI, round(4.8 * DPI))
    real, generated = np.concatenate([SCORES[source, 0] for source in ("coco", "raise", "own")]), SCORES["glide", 1]
    labels = np.repeat((0, 1), (real.size, generated.size))
    false, true, _ = roc_curve(labels, np.concatenate((real, generated)), drop_intermediate=False)
    whole, few = figure.axes
    for axes in (whole, few):
        x, y = line(axes, "glide")
        np.testing.assert_allclose(x, false, atol=1e-12)
        np.testing.assert_allclose(y, true, atol=1e-12)
    dots = {tuple(np.ravel(each.get_xydata()).tolist()) for each in whole.lines if each.get_marker() == "o"}
    assert (np.mean(real > 0.6), np.mean(generated > 0.6)) in dots
    assert len(dots) == 3
    ranked = sorted(found.metrics, key=lambda source: -found.metrics[source]["auc"].value)
    assert legend_of(figure) == [f"{found.metrics[source]['auc'].value:.3f}  {source}" for source in ranked]
    assert few.get_xscale() == "log"


def test_the_roc_curve_of_several_real_sources_has_their_mean_area() -> None:
    strata = TABLE.strata
    false, true = plots.roc_curve(strata, "flux", [("coco",), ("raise",), ("own",)])
    expected = np.mean([auc(strata[source, 0], strata["flux", 1]) for source in ("coco", "raise", "own")])
    assert np.trapezoid(true, false) == pytest.approx(expected, abs=0.02)  # it cuts the corners of the steps
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(false) >= 0)
    assert np.all(np.diff(true) >= 0)
    ((rate,), (found,)) = plots.roc_point(strata, "flux", [("coco",), ("raise",)], 0.4)
    assert rate == pytest.approx((np.mean(SCORES["coco", 0] > 0.4) + np.mean(SCORES["raise", 0] > 0.4)) / 2)
    assert found == np.mean(SCORES["flux", 1] > 0.4)


def test_many_generators_stay_apart(tmp_path: Path) -> None:
    generators = [(f"g{index}", 1, [0.1 * (index % 7), 0.9]) for index in range(25)]
    table = table_of([("real", 0, [0.2, 0.3, 0.4]), *generators])
    figure = plots.roc(table, measure(table, Protocol.POOLED, 0.5, resamples=2, seed=0))
    curves = [each for each in figure.axes[1].lines if each.get_linestyle() != "None"]
    assert len({(each.get_color(), each.get_linestyle()) for each in curves}) == len(curves) == 25
    assert rendered(figure, tmp_path / "roc.png")[0] > 12 * DPI  # the legend's second column takes nothing off the axes


def test_a_source_may_be_called_anything(tmp_path: Path) -> None:
    names = ["_hidden", "$x_1$ and \\frac", "a very long name that would leave no room"]
    table = table_of([("real", 0, [0.2, 0.3]), *((name, 1, [0.9]) for name in names)])
    figure = plots.roc(table, measure(table, Protocol.POOLED, 0.5, resamples=2, seed=0))
    rendered(figure, tmp_path / "roc.png")
    assert legend_of(figure) == [
        "1.000  _hidden", "1.000  \\$x_1\\$ and \\frac", "1.000  a very long name that would…",
    ]  # fmt: skip


def test_the_histogram_counts_each_class(tmp_path: Path) -> None:
    table = table_of([("a", 0, [0.0, 0.01, 0.5, np.nan]), ("b", 1, [1.0, 0.99, 0.99, 0.26])])
    figure = plots.histogram(table, 0.25)
    assert rendered(figure, tmp_path / "histogram.png") == (7 * DPI, round(4.2 * DPI))
    (axes,) = figure.axes
    outlines = [each for each in axes.patches if isinstance(each, StepPatch) and not each.get_fill()]
    shares = [each.get_data()[0] for each in outlines]
    expected = np.zeros((2, 40))
    expected[0, [0, 20]] = 200 / 3, 100 / 3
    expected[1, [10, 39]] = 25, 75
    np.testing.assert_allclose(shares, expected)
    assert legend_of(figure) == ["real (3 images)", "AI-generated (4 images)", "threshold 0.25"]
    assert set(line(axes, "threshold")[0]) == {0.25}


def test_a_class_without_scores_is_not_in_the_histogram() -> None:
    assert legend_of(plots.histogram(table_of([("a", 0, [0.5])]), 0.5)) == ["real (1 images)", "threshold 0.5"]


def metrics(value: float) -> dict[str, Interval]:
    return {"auc": Interval(value, value - 0.02, value + 0.01), "balanced_accuracy": Interval(value - 0.1, 0.3, 0.95)}


def test_robustness_is_a_panel_a_kind(tmp_path: Path) -> None:
    means = [
        (NONE, metrics(0.95)),
        (Perturbation(Kind.JPEG, 90), metrics(0.9)),
        (Perturbation(Kind.NOISE, 5), metrics(0.7)),
        (Perturbation(Kind.JPEG, 50), metrics(0.8)),
        (Perturbation(Kind.SCALE, 0.5), metrics(0.6)),
    ]
    figure = plots.robustness(means)
    assert rendered(figure, tmp_path / "robustness.png") == (round(9.6 * DPI), round(3.8 * DPI))
    jpeg, noise, scale = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "JPEG quality", "noise σ (grey levels of 255)", "scale of both sides",
    ]  # fmt: skip
    assert [axes.xaxis_inverted() for axes in figure.axes] == [True, False, True]
    (area, _) = jpeg.containers
    curve, _, (bars,) = area
    assert area.get_label() == "AUC"
    np.testing.assert_allclose(np.asarray(curve.get_xydata(), np.float64), [(50, 0.8), (90, 0.9)])
    ends = [np.asarray(bar, np.float64)[:, 1] for bar in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.78, 0.81], [0.88, 0.91]])
    assert set(line(noise, "AUC, unperturbed")[1]) == {0.95}
    np.testing.assert_allclose(line(scale, "balanced accuracy, unperturbed")[1], (0.85, 0.85))
    assert sorted(legend_of(figure)) == [
        "AUC", "AUC, unperturbed", "balanced accuracy", "balanced accuracy, unperturbed",
    ]  # fmt: skip


def test_one_kind_at_one_level(tmp_path: Path) -> None:
    figure = plots.robustness([(NONE, metrics(0.9)), (Perturbation(Kind.SCALE, 2), metrics(0.8))])
    assert rendered(figure, tmp_path / "robustness.png") == (round(5.5 * DPI), round(3.8 * DPI))
    (axes,) = figure.axes
    assert not axes.xaxis_inverted()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2"]
