"""Plots of an evaluation: ROC curves, score histograms, and what perturbations cost."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from spai_train.data.perturb import Kind, Perturbation
from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.bootstrap import Floats, Interval
from spai_train.evaluation.legends import legend_above, short
from spai_train.evaluation.protocol import Measurement, Opponents
from spai_train.evaluation.scored import ScoredTable, Stratum
from spai_train.evaluation.tally import Ranking

# Okabe and Ito, Color Universal Design, 2008, but for its yellow, which is too light for a line on white.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000",
)  # fmt: skip
GREY = "#888888"
STYLES = ("-", "--", ":", "-.")
BINS = 40
WIDTH = 12  # inches, with one column of a legend
ENTRIES = 20  # of a column

AXES = {
    Kind.JPEG: "JPEG quality",
    Kind.WEBP: "WebP quality",
    Kind.BLUR: "Gaussian kernel (pixels)",
    Kind.NOISE: "noise σ (grey levels of 255)",
    Kind.SCALE: "scale of both sides",
}
FALLING = (Kind.JPEG, Kind.WEBP)  # a lower level does more: harm grows to the right on every axis
ROBUSTNESS = {"auc": ("AUC", BLUE, "o"), "balanced_accuracy": ("balanced accuracy", VERMILION, "s")}

Curve = tuple[Floats, Floats]  # false and true positives, both rising from 0 to 1


def roc(table: ScoredTable, measurement: Measurement) -> Figure:
    """A curve for each generator, on linear axes and with few false positives drawn wide; dots are at the threshold.

    The best is first, as in the legend.
    """
    figure, panels = _panels(table)
    for axes in panels:
        _curves(axes, table.strata, measurement)
    _name_curves(figure, panels[-1], f"AUC; dots: threshold {measurement.threshold:.4g}")
    return figure


def mean_rocs(found: Mapping[str, tuple[ScoredTable, Measurement]]) -> Figure:
    """A curve for each detector: the mean over the generators of the true positives at each rate of false ones.

    The best is first, as in the legend.
    """
    figure, panels = _panels(next(iter(found.values()))[0])
    areas = {name: measurement.mean["auc"].value for name, (_, measurement) in found.items() if measurement.mean}
    for axes in panels:
        for name, (style, colour) in _looks(areas):
            table, measurement = found[name]
            strata, opponents = table.strata, measurement.opponents
            curve = mean_curve([roc_curve(strata, source, against) for source, against in opponents.items()])
            axes.plot(*curve, color=colour, linestyle=style, label=f"{areas[name]:.3f}  {short(name)}")
    _name_curves(figure, panels[-1], "mean AUC over the generators")
    return figure


def _panels(table: ScoredTable) -> tuple[Figure, tuple[Axes, Axes]]:
    """Axes for rates of false and true positives, linear and with few false positives drawn wide."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    whole, few = figure.subplots(1, 2)
    whole.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":")
    for axes in (whole, few):
        axes.set(xlabel="false positive rate", ylabel="true positive rate", ylim=(-0.01, 1.01))
        _tidy(axes, "both")
    whole.set(xlim=(-0.01, 1.01))
    reals = max(scores.size for (_, label), scores in table.strata.items() if label == REAL)
    few.set(xscale="log", xlim=(min(1 / reals, 0.01), 1))
    few.xaxis.set_major_formatter("{x:g}")
    return figure, (whole, few)


def _looks(areas: Mapping[str, float]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names with a style and a colour, the largest area first: all colours in one style, then in the next."""
    looks = itertools.cycle(itertools.product(STYLES, COLOURS))
    return zip(sorted(areas, key=areas.__getitem__, reverse=True), looks, strict=False)


def _curves(axes: Axes, strata: Mapping[Stratum, Floats], measurement: Measurement) -> None:
    areas = {source: metrics["auc"].value for source, metrics in measurement.metrics.items()}
    for source, (style, colour) in _looks(areas):
        opponents, label = measurement.opponents[source], f"{areas[source]:.3f}  {short(source)}"
        axes.plot(*roc_curve(strata, source, opponents), color=colour, linestyle=style, label=label)
        point = roc_point(strata, source, opponents, measurement.threshold)
        axes.plot(*point, color=colour, marker="o", markersize=5, linestyle="", zorder=3)


def _name_curves(figure: Figure, axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = math.ceil(len(labels) / ENTRIES)
    figure.set_figwidth(WIDTH + (columns - 1) * 2.5)
    size = {"fontsize": "small", "title_fontsize": "small"}
    figure.legend(handles, labels, loc="outside right upper", title=title, ncols=columns, frameon=False, **size)


def roc_curve(strata: Mapping[Stratum, Floats], generator: str, opponents: Sequence[Opponents]) -> Curve:
    """A generator's ROC curve; with several opponents, the mean of the true positives at each rate of false ones."""
    return mean_curve([_curve(strata, generator, sources) for sources in opponents])


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of the true positives at each rate of false ones, straight between points."""
    if len(curves) == 1:
        return curves[0]
    rates = np.unique(np.concatenate([false for false, _ in curves]))
    found = np.mean([np.interp(rates, *curve) for curve in curves], axis=0)
    return np.concatenate(([0.0], rates)), np.concatenate(([0.0], found))


def roc_point(
    strata: Mapping[Stratum, Floats], generator: str, opponents: Sequence[Opponents], threshold: float
) -> tuple[list[float], list[float]]:
    """The threshold's point: the mean rate of false positives over the opponents, and that of true ones."""
    false = [np.mean(np.concatenate([strata[source, REAL] for source in each]) > threshold) for each in opponents]
    return [float(np.mean(false))], [float(np.mean(strata[generator, GENERATED] > threshold))]


def histogram(table: ScoredTable, threshold: float) -> Figure:
    """Shows which share of each class has which score."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, name, colour in ((REAL, "real", BLUE), (GENERATED, "AI-generated", VERMILION)):
        scores = table.scores_of(label)
        if scores.size:
            heights, edges = np.histogram(scores, BINS, (0, 1))
            shares, images = 100 * heights / scores.size, f"{name} ({scores.size:,} images)"
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(shares, edges, color=colour, linewidth=1.5, label=images)
    axes.axvline(threshold, color=BLACK, linewidth=1, linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set(
        xlabel="score (probability that the image is AI-generated)",
        ylabel="share of the class's images",
        xlim=(-0.01, 1.01),
    )
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_ylim(bottom=0)
    _tidy(axes, "y")
    legend_above(figure, *axes.get_legend_handles_labels())
    return figure


def robustness(means: Sequence[tuple[Perturbation, Mapping[str, Interval]]]) -> Figure:
    """A panel for each kind of perturbation; harm grows to the right, and dashed lines are the images as they are."""
    kinds = [kind for kind in AXES if any(perturbation.kind is kind for perturbation, _ in means)]
    figure = Figure(figsize=(max(5.5, 3.2 * len(kinds)), 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    plain = next((metrics for perturbation, metrics in means if perturbation.kind is Kind.NONE), {})
    for axes, kind in zip(panels, kinds, strict=True):
        points = sorted((each for each in means if each[0].kind is kind), key=lambda each: each[0].level)
        _perturbed(axes, points, plain)
        levels = sorted({perturbation.level for perturbation, _ in points})
        axes.set_xlabel(AXES[kind])
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        if kind in FALLING or (kind is Kind.SCALE and levels[0] < 1):
            axes.invert_xaxis()
        axes.margins(x=0.12)
        _tidy(axes, "y")
    panels[0].set_ylabel("mean over the generators")
    legend_above(figure, *panels[0].get_legend_handles_labels())
    return figure


def _perturbed(
    axes: Axes, points: Sequence[tuple[Perturbation, Mapping[str, Interval]]], plain: Mapping[str, Interval]
) -> None:
    levels = [perturbation.level for perturbation, _ in points]
    for name, (title, colour, marker) in ROBUSTNESS.items():
        found = [metrics[name] for _, metrics in points]
        values = [interval.value for interval in found]
        below, above = zip(*((one.value - one.low, one.high - one.value) for one in found), strict=True)
        spread = np.maximum((below, above), 0)  # a percentile interval need not hold the value
        axes.errorbar(levels, values, spread, color=colour, marker=marker, markersize=5, capsize=3, label=title)
        if name in plain:
            axes.axhline(plain[name].value, color=colour, linewidth=1, linestyle="--", label=f"{title}, unperturbed")


def _curve(strata: Mapping[Stratum, Floats], generator: str, sources: Opponents) -> Curve:
    real = np.concatenate([strata[source, REAL] for source in sources])
    tally = Ranking(real, strata[generator, GENERATED]).tally()
    return tally.false_positives[0, ::-1], tally.true_positives[0, ::-1]


def _tidy(axes: Axes, grid: Literal["y", "both"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
