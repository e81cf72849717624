"""An evaluation for people: tables on stdout, in colours on a terminal, plain in a pipe."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spai_runtime.manifest import Threshold
from spai_runtime.text import visible
from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.comparison import MEAN, Comparison
from spai_train.evaluation.evaluate import Evaluation
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.protocol import Measurement
from spai_train.evaluation.reproduction import Reproduction
from spai_train.evaluation.several import Together

TITLES = {
    "auc": "AUC",
    "average_precision": "AP",
    "accuracy": "acc.",
    "balanced_accuracy": "bal. acc.",
    "equal_error_rate": "EER",
    "tpr_at_1_percent_fpr": "TPR@1%",
    "tpr_at_5_percent_fpr": "TPR@5%",
    "calibration_error": "ECE",
}
PIPE_WIDTH = 200  # columns, where there is no terminal to ask
INTERVAL_WIDTH = len("0.000 [0.000, 0.000]")


def show(evaluation: Evaluation) -> None:
    """Shows generators with their metrics, every source's share labelled `ai`, and the means under perturbations."""
    console = _console()
    for table in filter(None, (_metrics(evaluation), _rates(evaluation), _robustness(evaluation))):
        console.print(table)
    _show_threshold(console, evaluation.threshold)


def show_means(measurements: Mapping[str, Measurement], title: str) -> None:
    """Shows mean metrics, e.g. of baselines; none where one class is missing. :param title: heads their names"""
    table = _table([title, *(TITLES[name] for name in METRICS)])
    for name, found in measurements.items():
        table.add_row(_name(name), *(_cells(found.mean.values()) if found.mean else ["undefined"]))
    _console().print(table)


def show_comparison(comparison: Comparison, metric: str) -> None:
    """Shows a column a detector, the mean over the sources first. Intervals that would not fit a line are left out."""
    console = _console()
    fits = sum(max(len(name), INTERVAL_WIDTH) + 2 for name in ("source", *comparison.names)) <= console.width
    table = _table([TITLES[metric], *map(escape, comparison.names)])
    for source, intervals in comparison.rows(metric):
        cells = ["undefined" if one is None else str(one) if fits else f"{one.value:.3f}" for one in intervals]
        table.add_row(_name(source), *cells, style="bold" if source == MEAN else "")
    console.print(table)


def show_together(together: Together) -> None:
    """Shows each detector's and rule's mean metrics, the AUC of each generator, and how detectors disagree."""
    console, named = _console(), together.named
    show_means({name: found.measurements[0] for name, found in named.items()}, "detector")
    if generators := [*together.detectors[0].measurements[0].metrics]:
        table = _table(["AUC", *map(escape, named)])
        for source in generators:
            found = [one.measurements[0].metrics.get(source) for one in named.values()]
            table.add_row(
                _name(source), *(f"{metrics['auc'].value:.3f}" if metrics else "undefined" for metrics in found)
            )
        console.print(table)
    console.print(_disagreements(together))
    for name, one in zip(together.names, together.detectors, strict=True):
        _show_threshold(console, one.threshold, f"{name}: ")
    _show_threshold(console, next(iter(together.fusions.values())).threshold, "fusion: ")


def show_reproduction(reproduction: Reproduction) -> None:
    """Shows each published figure beside the one here, and whose it is."""
    console, published = _console(), reproduction.wanted.table
    table = _table(["generator", "metric", "published", "here, 95% interval", "difference"])
    for one in reproduction.figures:
        cells = TITLES[one.metric], f"{one.published:.3f}", str(one.here), f"{one.difference:+.3f}"
        table.add_row(_name(one.generator), *cells, style="bold" if one.generator == MEAN else "")
    console.print(table)
    row = published.described(reproduction.row)
    lines = [f"published: row {row} of {reproduction.wanted.name}: {published.title}. {published.source}"]
    lines.append(f"published protocol: {published.protocol}")
    if reproduction.only_published:
        lines.append(f"published, without images here: {', '.join(reproduction.only_published)}")
    if reproduction.only_here:
        lines.append(f"images here, not published: {', '.join(reproduction.only_here)}")
    for line in lines:
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)


def _disagreements(together: Together) -> Table:
    """The disagreements on the images that are measured first."""
    table = _table(["detectors", "images", "other labels", "rank correlation", "1st alone right", "2nd alone right"])
    for perturbation, one in together.disagreements:
        if perturbation == together.detectors[0].tables[0].perturbation:
            shares = one.labels_differ, one.first_right_where_second_wrong, one.second_right_where_first_wrong
            differ, first, second = ("—" if share is None else str(share) for share in shares)
            correlation = "—" if one.spearman is None else f"{one.spearman:.3f}"
            table.add_row(_name(f"{one.first}, {one.second}"), str(one.images), differ, correlation, first, second)
    return table


def _show_threshold(console: Console, threshold: Threshold, of: str = "") -> None:
    said = visible(f"{of}threshold {threshold.value:g}: {threshold.source}")
    console.print(said, markup=False, soft_wrap=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH, color_system=None)


def _metrics(evaluation: Evaluation) -> Table | None:
    found = evaluation.measurements[0]
    if not found.metrics:
        return None
    table = _table(["generator", *(TITLES[name] for name in METRICS)])
    for source, metrics in found.metrics.items():
        table.add_row(_name(source), *_cells(metrics.values()))
    table.add_section()
    table.add_row(Text("mean"), *_cells(found.mean.values()), style="bold")
    return table


def _rates(evaluation: Evaluation) -> Table:
    """The shares of images that are labelled `ai`, with the real sources first."""
    table = _table(["source", "class", "images", "errors", "labelled ai, 95% interval"])
    for label, title in ((REAL, "real"), (GENERATED, "AI-generated")):
        for rate in evaluation.measurements[0].rates:
            if rate.label == label:
                share = str(rate.labelled_ai) if rate.labelled_ai else "—"
                table.add_row(_name(rate.source), title, str(rate.images), str(rate.errors or ""), share)
    return table


def _robustness(evaluation: Evaluation) -> Table | None:
    if len(evaluation.means) < 2:
        return None
    table = _table(["perturbation", "mean AUC, 95% interval", "mean balanced accuracy, 95% interval"])
    for perturbation, metrics in evaluation.means:
        table.add_row(str(perturbation), str(metrics["auc"]), str(metrics["balanced_accuracy"]))
    return table


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(titles[0], overflow="fold")
    for title in titles[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _cells(metrics: Iterable[Interval]) -> list[str]:
    """The first metric with its interval and the others without, so that a line fits a terminal."""
    first, *others = metrics
    return [str(first), *(f"{interval.value:.3f}" for interval in others)]


def _name(source: str) -> Text:
    """The name as text without markup and without escape sequences."""
    return Text(visible(source))
