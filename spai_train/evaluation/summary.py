"""An evaluation for people: tables on stdout, in colours on a terminal, plain in a pipe."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spai_runtime.text import visible
from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.comparison import MEAN, Comparison
from spai_train.evaluation.evaluate import Evaluation
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.protocol import Measurement

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


def show(evaluation: Evaluation) -> None:
    """Generators with their metrics, the shares labelled `ai` of every source, and the means under perturbations."""
    console = _console()
    for table in filter(None, (_metrics(evaluation), _rates(evaluation), _robustness(evaluation))):
        console.print(table)
    console.print(
        visible(f"threshold {evaluation.threshold.value:g}: {evaluation.threshold.source}"),
        markup=False,
        soft_wrap=True,
    )


def show_baselines(measurements: Mapping[str, Measurement]) -> None:
    """The mean metrics of each baseline; none where one class is missing."""
    table = _table(["baseline", *(TITLES[name] for name in METRICS)])
    for name, found in measurements.items():
        table.add_row(name, *(_cells(found.mean.values()) if found.mean else ["undefined"]))
    _console().print(table)


def show_comparison(comparison: Comparison, metric: str) -> None:
    """A column a detector; the mean over the sources first."""
    table = _table([TITLES[metric], *map(escape, comparison.names)])
    for source, intervals in comparison.rows(metric):
        cells = [str(interval) if interval else "undefined" for interval in intervals]
        table.add_row(_name(source), *cells, style="bold" if source == MEAN else "")
    _console().print(table)


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
    """False positives first."""
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
    """The first with its interval, the others alone: a line must fit a terminal."""
    first, *others = metrics
    return [str(first), *(f"{interval.value:.3f}" for interval in others)]


def _name(source: str) -> Text:
    """No markup, and no escape sequences."""
    return Text(visible(source))
