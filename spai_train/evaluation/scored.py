"""Labelled images and what a detector says of them, as columns."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spai_runtime.calibration import Calibration, log_odds, probability
from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item, printable
from spai_runtime.images import Picture
from spai_runtime.results import Result, Score
from spai_runtime.scoring.pipeline import score_items
from spai_train.data.perturb import NONE, Perturbation
from spai_train.data.stores import FILES, Store
from spai_train.data.table import Row
from spai_train.evaluation.bootstrap import Floats
from spai_train.evaluation.pictures import ResizedPicture
from spai_train.evaluation.preparation import AS_THEY_ARE, Preparation

Stratum = tuple[str, int]  # the images of one source and one class: what is drawn again from itself
Watch = Callable[[Iterator[Result]], Iterator[Result]]


@dataclass(frozen=True, eq=False)
class ScoredTable:
    """The rows of a table with their scores.

    :param rows: N rows
    :param score, logit: (N,), NaN where the image could not be scored
    :param log_odds: (N,), those of the score before digits are cut, which fusion takes; NaN where there is no score
    :param errors: N sentences on what is wrong; "" where the image was scored
    :param perturbation: what was done to every image first
    """

    rows: tuple[Row, ...]
    score: Floats = field(repr=False)
    logit: Floats = field(repr=False)
    log_odds: Floats = field(repr=False)
    errors: tuple[str, ...] = field(repr=False)
    perturbation: Perturbation = NONE

    @cached_property
    def label(self) -> NDArray[np.int64]:
        """(N,) 0 real, 1 generated."""
        return np.array([row.label for row in self.rows], np.int64)

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """(N,) whether there is a score."""
        return np.array([not error for error in self.errors], np.bool_)

    @property
    def strata(self) -> dict[Stratum, Floats]:
        """The scores of each source and class, for images that have one; sources are in the order of the rows."""
        places: dict[Stratum, list[int]] = {}
        for index, row in enumerate(self.rows):
            if not self.errors[index]:
                places.setdefault((row.source, row.label), []).append(index)
        return {stratum: self.score[indices] for stratum, indices in places.items()}

    def scores_of(self, label: int) -> Floats:
        """The scores of a class."""
        chosen: Floats = self.score[self.scored & (self.label == label)]
        return chosen

    def calibrated(self, calibration: Calibration | None) -> "ScoredTable":
        """The scores that the same logits would have had with this calibration."""
        score, odds, logits = self.score.copy(), self.log_odds.copy(), self.logit[self.scored].tolist()
        score[self.scored] = [probability(logit, calibration) for logit in logits]
        odds[self.scored] = [log_odds(logit, calibration) for logit in logits]
        return replace(self, score=score, log_odds=odds)


def score_rows(
    detectors: Sequence[Detector],
    rows: Sequence[Row],
    perturbation: Perturbation = NONE,
    *,
    preparation: Preparation = AS_THEY_ARE,
    store: Store = FILES,
    seed: int = 0,
    resize_to: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    watch: Watch = iter,
) -> list[ScoredTable]:
    """Scores the images of a table through the runtime's pipeline, which decodes each once.

    :param preparation: what is done to the images before the perturbation
    :param store: the store that holds the images
    :param seed: the seed of the noise; an image's own follows from it and the image's name
    :param resize_to: length that an image's shorter side gets after the perturbation; None leaves it
    :param watch: it is shown the results as they pass
    :returns: the table of each detector
    """

    def opened(item: Item) -> Picture:
        row = rows[int(item.name)]
        own_seed = seed + zlib.crc32(printable(row.name).encode())
        picture = preparation.of(Picture.open(store.source(row)), row.label, own_seed)
        picture = Preparation(perturbation).of(picture, row.label, own_seed)
        return ResizedPicture(picture, resize_to) if resize_to else picture

    items = (Item(row.path, str(index)) for index, row in enumerate(rows))
    results = watch(score_items(detectors, items, batch_size=batch_size, workers=workers, open_item=opened))
    columns = [_Columns() for _ in detectors]
    for result in results:
        for column, score in zip(columns, result.scores or [None] * len(columns), strict=True):
            column.add(score, result.error)
    return [column.table(rows, perturbation) for column in columns]


class _Columns:
    """Collects what a detector says of one image after the other: only what a table keeps of a score."""

    def __init__(self) -> None:
        self._numbers: list[tuple[float, float, float]] = []
        self._errors: list[str] = []

    def add(self, score: Score | None, error: str) -> None:
        """:param error: the image's error; where there is a score, it is another detector's and does not count"""
        self._numbers.append((score.score, score.logit, score.log_odds) if score else (np.nan,) * 3)
        self._errors.append("" if score else error)

    def table(self, rows: Sequence[Row], perturbation: Perturbation) -> ScoredTable:
        score, logit, odds = np.array(self._numbers, np.float64).reshape(-1, 3).T
        return ScoredTable(tuple(rows), score, logit, odds, tuple(self._errors), perturbation)
