"""Labelled images and what a detector says of them, as columns."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spai_runtime.calibration import Calibration, probability
from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item, printable
from spai_runtime.images import Picture
from spai_runtime.results import Result
from spai_runtime.scoring.pipeline import score_items
from spai_train.data.perturb import NONE, Kind, Perturbation
from spai_train.data.stores import FILES, Store
from spai_train.data.table import Row
from spai_train.evaluation.bootstrap import Floats
from spai_train.evaluation.pictures import PerturbedPicture, ResizedPicture

Stratum = tuple[str, int]  # the images of one source and one class: what is drawn again from itself
Watch = Callable[[Iterator[Result]], Iterator[Result]]


@dataclass(frozen=True, eq=False)
class ScoredTable:
    """The rows of a table with their scores.

    :param rows: N of them
    :param score, logit: (N,) NaN where the image could not be scored
    :param errors: N sentences; "" where it could
    :param perturbation: what was done to every image first
    """

    rows: tuple[Row, ...]
    score: Floats = field(repr=False)
    logit: Floats = field(repr=False)
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
        """Scores of the scored images of each source and class, sources in the order of the rows."""
        places: dict[Stratum, list[int]] = {}
        for index, row in enumerate(self.rows):
            if not self.errors[index]:
                places.setdefault((row.source, row.label), []).append(index)
        return {stratum: self.score[indices] for stratum, indices in places.items()}

    def scores_of(self, label: int) -> Floats:
        """Scores of a class."""
        chosen: Floats = self.score[self.scored & (self.label == label)]
        return chosen

    def calibrated(self, calibration: Calibration | None) -> "ScoredTable":
        """The scores that the same logits would have had with this calibration."""
        score = self.score.copy()
        score[self.scored] = [probability(logit, calibration) for logit in self.logit[self.scored].tolist()]
        return replace(self, score=score)


def score_rows(
    detector: Detector,
    rows: Sequence[Row],
    perturbation: Perturbation = NONE,
    *,
    store: Store = FILES,
    seed: int = 0,
    resize_to: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    watch: Watch = iter,
) -> ScoredTable:
    """Scores the images of a table through the runtime's pipeline.

    :param store: that holds the images
    :param seed: of the noise; an image's own follows from it and the image's name
    :param resize_to: length of the shorter side that an image is given behind the perturbation; None leaves it
    :param watch: sees the results pass
    """

    def opened(item: Item) -> Picture:
        row = rows[int(item.name)]
        picture = Picture.open(store.source(row))
        if perturbation.kind is not Kind.NONE:
            picture = PerturbedPicture(picture, perturbation, seed + zlib.crc32(printable(row.name).encode()))
        return ResizedPicture(picture, resize_to) if resize_to else picture

    items = (Item(row.path, str(index)) for index, row in enumerate(rows))
    results = watch(score_items(detector, items, batch_size=batch_size, workers=workers, open_item=opened))
    scores, logits, errors = [], [], []
    for result in results:
        scores.append(result.score.score if result.score else np.nan)
        logits.append(result.score.logit if result.score else np.nan)
        errors.append(result.error)
    return ScoredTable(tuple(rows), np.array(scores), np.array(logits), tuple(errors), perturbation)
