"""report.html: an evaluation as one page: tables, plots, and the images that the detector is most wrong about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.errors import ImageError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.sources import printable
from spai_runtime.images import Picture
from spai_runtime.report.page import write_page
from spai_runtime.report.thumbnail import Detail, Thumbnail
from spai_train.data.stores import Store, open_store
from spai_train.data.table import GENERATED, REAL, Row
from spai_train.evaluation.bootstrap import Floats
from spai_train.evaluation.evaluate import Evaluation
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.summary import TITLES

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
WORST = 12  # images of each class that are shown
PLOTS = {
    "roc.png": "ROC curves",
    "histogram.png": "Scores of each class",
    "robustness.png": "What changed images cost",
}


@dataclass(frozen=True)
class Mistake:
    """An image that lies on the wrong side of the threshold.

    :param thumbnail: None where the image cannot be shown
    """

    name: str
    source: str
    score: float
    width: int
    height: int
    thumbnail: Thumbnail | None


def write(
    content: Mapping[str, Any], output: Path, evaluations: Mapping[str, Evaluation], plots: Sequence[str]
) -> None:
    """Writes the page into the folder.

    :param content: that of metrics.json; for several detectors, each has its own under `reports`
    :param evaluations: the evaluations whose mistakes are shown, by the names of the detectors
    :param plots: the names of PNG files in the folder
    :raises OSError: it cannot be written
    """
    reports = content.get("reports", [content])
    with atomic_write(output / NAME) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        write_page(
            file,
            "evaluation.html",
            TEMPLATES,
            script="evaluation.js",
            version=version("spai-toolkit"),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            reports=reports,
            disagreement=content.get("disagreement", []),
            published=_published(content),
            plots=[(PLOTS[name], (output / name).read_bytes()) for name in plots],
            mistakes={name: mistakes_of(found) for name, found in evaluations.items()},
            metrics=METRICS,
            titles=TITLES,
        )


def mistakes_of(evaluation: Evaluation) -> Mapping[str, Sequence[Mistake]]:
    """Mistakes on the images as they are, the worst first: high scores of real ones, low scores of generated ones."""
    table, limit, store = evaluation.tables[0], evaluation.threshold.value, open_store(evaluation.options.store)
    scores = table.score
    flagged = table.scored & (table.label == REAL) & (scores > limit)
    missed = table.scored & (table.label == GENERATED) & ~(scores > limit)
    found = {
        f"Real images labelled “{evaluation.positive}”": (flagged, -scores),
        "Generated images labelled “real”": (missed, scores),
    }
    return {title: _worst(table.rows, scores, *chosen, store) for title, chosen in found.items()}


def _worst(
    rows: Sequence[Row], scores: Floats, wrong: NDArray[np.bool_], key: Floats, store: Store
) -> Sequence[Mistake]:
    (places,) = np.nonzero(wrong)
    order = places[np.argsort(key[places], kind="stable")][:WORST]
    return [_mistake(rows[place], float(scores[place]), store) for place in order]


def _mistake(row: Row, score: float, store: Store) -> Mistake:
    about = printable(row.name), printable(row.source), score
    try:
        picture = Picture.open(store.source(row))
        size = picture.width, picture.height
        return Mistake(*about, *size, Thumbnail.of_picture(picture, Detail.of(2 * WORST)))
    except ImageError:
        return Mistake(*about, 0, 0, None)


def _published(content: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The published figures by the names of detectors."""
    published = content.get("published", {})
    return {content["detector"]["name"]: published} if "figures" in published else published
