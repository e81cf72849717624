"""An evaluation of several detectors as files: scores.csv, metrics.json, four tables, a plot, and report.html."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spai_runtime.files.rows import OF_A_DETECTOR
from spai_train.data.table import COLUMNS
from spai_train.evaluation import page, plots
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.evaluate import Evaluation
from spai_train.evaluation.reproduction import Reproduction
from spai_train.evaluation.results import (
    Line,
    cells,
    draw,
    ends,
    metric_lines,
    own_cells,
    published_lines,
    report,
    robustness_lines,
    said_of,
    write_csv,
    write_json,
)
from spai_train.evaluation.several import Together, name_of

OF_FUSION = ("score", "label")  # the columns of each rule
SHARES = ("labels_differ", "first_right_where_second_wrong", "second_right_where_first_wrong")


def write(together: Together, output: Path, reproductions: Mapping[str, Reproduction] | None = None) -> None:
    """Writes what there is to write; each file appears under its name when it is whole.

    :param reproductions: comparisons with published figures by the names of detectors, where they are asked for
    :raises OSError: a file cannot be written
    """
    output.mkdir(parents=True, exist_ok=True)
    named = together.named
    write_csv(output / "scores.csv", _score_lines(together))
    write_csv(output / "metrics.csv", _by_name((name, metric_lines(found)) for name, found in named.items()))
    published = {name: one.report() for name, one in reproductions.items()} if reproductions else None
    content = {**reports(together), **({"published": published} if published else {})}
    write_json(output / "metrics.json", content)
    if reproductions:
        found = ((name, published_lines(one)) for name, one in reproductions.items())
        write_csv(output / "published.csv", _by_name(found))
    write_csv(output / "disagreement.csv", _disagreement_lines(together))
    drawn = []
    if together.detectors[0].measurements[0].opponents:
        first = {name: (found.tables[0], found.measurements[0]) for name, found in named.items()}
        draw(output / "roc.png", plots.mean_rocs(first))
        drawn.append("roc.png")
    if len(together.detectors[0].means) > 1:
        lines = ((name, robustness_lines(found.means)) for name, found in named.items())
        write_csv(output / "robustness.csv", _by_name(lines))
    page.write(content, output, dict(zip(together.names, together.detectors, strict=True)), drawn)


def reports(together: Together) -> dict[str, Any]:
    """The content of metrics.json; under `reports` stands what it would be for each alone, which `compare` reads."""
    return {
        "reports": [report(found) for found in together.named.values()],
        "disagreement": [
            {"perturbation": str(perturbation), **asdict(one)} for perturbation, one in together.disagreements
        ],
    }


def _by_name(tables: Iterable[tuple[str, Iterator[Line]]]) -> Iterator[Line]:
    """One header, then the lines of all; each begins with the name of its detector or rule."""
    for number, (name, lines) in enumerate(tables):
        header = next(lines)
        if number == 0:
            yield ("detector", *header)
        yield from ((name, *line) for line in lines)


def _score_lines(together: Together) -> Iterator[Line]:
    """The lines as `spai-run` writes them: a group of columns for each detector, and then the fused scores."""
    tables = together.detectors[0].tables
    perturbed = ["perturbation"] if len(tables) > 1 else []
    groups = [f"{name}_{column}" for name in together.names for column in OF_A_DETECTOR]
    fused = [f"{name_of(rule)}_{column}" for rule in together.fusions for column in OF_FUSION]
    yield (*COLUMNS, *groups, *fused, "error", *perturbed)
    for number, table in enumerate(tables):
        said = [said_of(found, number) for found in together.detectors]
        together_said = [_of_fusion(found, number) for found in together.fusions.values()]
        errors = next(iter(together.fusions.values())).tables[number].errors
        for row, error, *groups_said in zip(table.rows, errors, *said, *together_said, strict=True):
            flat = (cell for group in groups_said for cell in group)
            yield (*own_cells(row), *flat, error, *([table.perturbation] if perturbed else []))


def _of_fusion(found: Evaluation, number: int) -> Iterator[tuple[float | str, ...]]:
    return ((score, label) for score, _, label in said_of(found, number))


def _disagreement_lines(together: Together) -> Iterator[Line]:
    yield ("perturbation", "first", "second", "images", "spearman", *ends(SHARES))
    for perturbation, one in together.disagreements:
        shares: dict[str, Interval | None] = {name: getattr(one, name) for name in SHARES}
        spearman = "" if one.spearman is None else one.spearman
        yield (perturbation, one.first, one.second, one.images, spearman, *cells(shares, SHARES))
