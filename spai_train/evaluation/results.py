"""An evaluation as files: scores.csv, metrics.json, metrics.csv, robustness.csv, the plots, and report.html."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure

from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.sources import printable
from spai_train.data.perturb import Kind, Perturbation
from spai_train.data.table import COLUMNS, Row
from spai_train.evaluation import page, plots
from spai_train.evaluation.bootstrap import CONFIDENCE, Interval
from spai_train.evaluation.evaluate import Evaluation
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.protocol import Measurement, Rate
from spai_train.evaluation.reproduction import Reproduction

Line = Sequence[Any]
DPI = 150


def write(evaluation: Evaluation, output: Path, reproduction: Reproduction | None = None) -> None:
    """Writes what there is to write; each file appears under its name when it is whole.

    :param reproduction: the comparison with published figures, where it is asked for
    :raises OSError: a file cannot be written
    """
    output.mkdir(parents=True, exist_ok=True)
    table, measurement = evaluation.tables[0], evaluation.measurements[0]
    write_csv(output / "scores.csv", _score_lines(evaluation))
    write_csv(output / "metrics.csv", metric_lines(evaluation))
    published = {"published": reproduction.report()} if reproduction else {}
    content = {**report(evaluation), **published}
    write_json(output / "metrics.json", content)
    if reproduction:
        write_csv(output / "published.csv", published_lines(reproduction))
    figures = {}
    if measurement.opponents:
        figures["roc.png"] = plots.roc(table, measurement)
    if table.scored.any():
        figures["histogram.png"] = plots.histogram(table, evaluation.threshold.value)
    if len(evaluation.means) > 1:
        write_csv(output / "robustness.csv", robustness_lines(evaluation.means))
        figures["robustness.png"] = plots.robustness(evaluation.means)
    for name, figure in figures.items():
        draw(output / name, figure)
    page.write(content, output, {str(evaluation.detector["name"]): evaluation}, [*figures])


def report(evaluation: Evaluation) -> dict[str, Any]:
    """The content of metrics.json."""
    options = evaluation.options
    results = zip(evaluation.tables, evaluation.measurements, strict=True)
    return {
        "detector": evaluation.detector,
        "threshold": asdict(evaluation.threshold),
        "calibrated_here": json.loads(msgspec.json.encode(evaluation.calibrated)),
        "tables": evaluation.files,
        "split": options.split,
        "resize_to": options.resize_to,
        "ten_crop": options.ten_crop,
        "preparation": options.preparation.described or None,
        "protocol": {"name": options.protocol.value, "rule": options.protocol.rule},
        "interval": f"{CONFIDENCE:.0%}, percentile bootstrap; images of a source and class are drawn from themselves",
        "resamples": options.resamples,
        "seed": options.seed,
        "results": [{"perturbation": str(table.perturbation), **_result(found)} for table, found in results],
    }


def _result(found: Measurement) -> dict[str, Any]:
    return {"sources": [_source(rate, found) for rate in found.rates], "mean": _as_numbers(found.mean)}


def _source(rate: Rate, found: Measurement) -> dict[str, Any]:
    entry = {
        "source": printable(rate.source),
        "class": rate.label,
        "images": rate.images,
        "errors": rate.errors,
        "labelled_ai": rate.labelled_ai and asdict(rate.labelled_ai),
    }
    if metrics := found.metrics_of(rate):
        entry |= {"against": found.opponents_of(rate), "metrics": _as_numbers(metrics)}
    return entry


def _as_numbers(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: asdict(interval) for name, interval in metrics.items()}


def _score_lines(evaluation: Evaluation) -> Iterator[Line]:
    """The columns of a table of images, so that it can be read as such a table, and then what the detector says."""
    perturbed = len(evaluation.tables) > 1
    yield (*COLUMNS, "score", "logit", "label", "error", *(["perturbation"] if perturbed else []))
    for number, table in enumerate(evaluation.tables):
        for row, said, error in zip(table.rows, said_of(evaluation, number), table.errors, strict=True):
            yield (*own_cells(row), *said, error, *([table.perturbation] if perturbed else []))


def own_cells(row: Row) -> tuple[str | int, ...]:
    """What a table of images says of one image."""
    return printable(row.name), row.label, printable(row.split), printable(row.source)


def said_of(evaluation: Evaluation, number: int) -> Iterator[tuple[float | str, ...]]:
    """The score, logit and label of each image, empty where there are none. :param number: the table's number"""
    table = evaluation.tables[number]
    for score, logit, error in zip(table.score, table.logit, table.errors, strict=True):
        label = evaluation.threshold.label(score, evaluation.positive)
        yield ("", "", "") if error else (float(score), float(logit), label)


def metric_lines(evaluation: Evaluation) -> Iterator[Line]:
    """A header, then a line for each source and class and for the mean; what is not defined is empty."""
    names = ("labelled_ai", *METRICS)
    yield ("perturbation", "source", "class", "against", "images", "errors", *ends(names))
    for table, found in zip(evaluation.tables, evaluation.measurements, strict=True):
        for rate in found.rates:
            metrics = found.metrics_of(rate)
            against = "; ".join(" + ".join(map(printable, sources)) for sources in found.opponents_of(rate))
            about = printable(rate.source), rate.label, against, rate.images, rate.errors
            yield (table.perturbation, *about, *cells({"labelled_ai": rate.labelled_ai, **metrics}, names))
        if found.mean:
            yield (table.perturbation, "mean", "", "", "", "", *cells(found.mean, names))


def published_lines(reproduction: Reproduction) -> Iterator[Line]:
    """A header, then a line for each published figure that was measured here; figures are shares, not percent."""
    yield ("metric", "generator", "source", "published", "here", "here_low", "here_high", "difference")
    for one in reproduction.figures:
        here = one.here.value, one.here.low, one.here.high
        yield (one.metric, one.generator, printable(one.source), one.published, *here, one.difference)


def robustness_lines(means: Iterable[tuple[Perturbation, Mapping[str, Interval]]]) -> Iterator[Line]:
    """A header, then a line for each perturbation."""
    names = ("auc", "balanced_accuracy")
    yield ("perturbation", "level", *ends(names))
    for perturbation, metrics in means:
        level = "" if perturbation.kind is Kind.NONE else f"{perturbation.level:g}"
        yield (perturbation.kind, level, *cells(metrics, names))


def ends(names: Sequence[str]) -> list[str]:
    """The columns of intervals: each name, and its two ends."""
    return [f"{name}{end}" for name in names for end in ("", "_low", "_high")]


def cells(intervals: Mapping[str, Interval | None], names: Sequence[str]) -> list[float | str]:
    """The cells of these columns; what is not defined is empty."""
    found = [intervals.get(name) for name in names]
    empty = ("", "", "")
    return [cell for one in found for cell in ((one.value, one.low, one.high) if one else empty)]


def write_csv(path: Path, lines: Iterable[Line]) -> None:
    """Writes lines as CSV; the file appears under its name when it is whole."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def write_json(path: Path, content: object) -> None:
    """Writes JSON; the file appears under its name when it is whole."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def draw(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG; the file appears under its name when it is whole."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=DPI)
