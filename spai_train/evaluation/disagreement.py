"""How often two detectors say different things of the same images."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from spai_runtime.manifest import Threshold
from spai_train.evaluation.bootstrap import Floats, Interval
from spai_train.evaluation.metrics import bootstrap_rate
from spai_train.evaluation.scored import ScoredTable


@dataclass(frozen=True)
class Verdicts:
    """What a detector says of the images of a table, and the threshold that it labels them by."""

    name: str
    table: ScoredTable
    threshold: Threshold


@dataclass(frozen=True)
class Disagreement:
    """Two detectors on the images that both have scored.

    :param images: how many images both have scored
    :param labels_differ: share of these that one calls AI-generated and the other real; None where there are none
    :param spearman: rank correlation of their scores, in [-1, 1]; None where one of them scores all images alike
    :param first_right_where_second_wrong: share of the images that the second labels wrongly which the first labels
        rightly; None where the second labels none wrongly
    :param second_right_where_first_wrong: the same with the two detectors exchanged
    """

    first: str
    second: str
    images: int
    labels_differ: Interval | None
    spearman: float | None
    first_right_where_second_wrong: Interval | None
    second_right_where_first_wrong: Interval | None

    @classmethod
    def between(cls, first: Verdicts, second: Verdicts, resamples: int, seed: int) -> "Disagreement":
        """:param first, second: what the two detectors say of the same rows"""
        both = first.table.scored & second.table.scored
        labels = [one.table.score[both] > one.threshold.value for one in (first, second)]
        right, other = (label == (first.table.label[both] == 1) for label in labels)

        def share(of: Floats) -> Interval | None:
            return bootstrap_rate(of, 0.5, seed, resamples) if of.size else None

        return cls(
            first.name,
            second.name,
            int(both.sum()),
            share((labels[0] != labels[1]).astype(np.float64)),
            _rank_correlation(first.table.log_odds[both], second.table.log_odds[both]),
            share(right[~other].astype(np.float64)),
            share(other[~right].astype(np.float64)),
        )


def _rank_correlation(first: Floats, second: Floats) -> float | None:
    """The rank correlation of log-odds, which are ordered as scores are, but without ties at scores cut to 1."""
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
