"""Fusion turns the log-odds of several detectors into one score.

The rules are those of GRIP (Cozzolino et al., Raising the Bar of AI-generated Image Detection with CLIP, CVPR workshops
2024; `utils/fusion.py` of their code), computed with logarithms of odds only, so that no logit is too large.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from statistics import fmean, median

from spai_runtime.calibration import decimal, probability
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Manifest, Threshold
from spai_runtime.text import visible

UNCALIBRATED = Threshold(0.5, "the default for fused scores, which are not calibrated")


class Rule(StrEnum):
    """The rules that make one number of log-odds x; p is their probability, sigmoid(x).

    SOFT_OR (GRIP's default): p = 1 − Π (1 − pᵢ), as if the detectors were independent and one `ai` were enough
    MEAN_LOGIT, MAX_LOGIT, MEDIAN_LOGIT: x = the mean, the largest, the median xᵢ (of an even number, as numpy's)
    LSE: x = log Σ exp(xᵢ), a soft maximum
    MEAN_PROB: p = the mean pᵢ
    """

    SOFT_OR = "soft_or"
    MEAN_LOGIT = "mean_logit"
    MAX_LOGIT = "max_logit"
    MEDIAN_LOGIT = "median_logit"
    LSE = "lse"
    MEAN_PROB = "mean_prob"

    def fuse(self, log_odds: Sequence[float]) -> float:
        """Fuse log-odds.

        :param log_odds: (detectors,), finite, in any order
        :returns: the fused log-odds, finite; those of a single detector stay as they are
        """
        assert log_odds
        return _FORMULAS[self](log_odds)


@dataclass(frozen=True)
class Fused:
    """The joint verdict of several detectors about one image.

    :param score: in [0, 1]; it is not a calibrated probability, even if the detectors' scores are
    :param logit: the log-odds of the score
    :param label: what the detectors say, e.g. `ai`, if score > threshold; otherwise `real`
    """

    score: float
    logit: float
    label: str


@dataclass(frozen=True)
class Fusion:
    """How the scores of several detectors become one.

    :param threshold: the threshold for fused scores; it does not follow from the thresholds of the detectors
    :param positive: the label that all of the detectors give above their thresholds
    """

    rule: Rule = Rule.SOFT_OR
    threshold: Threshold = UNCALIBRATED
    positive: str = "ai"

    def fuse(self, log_odds: Sequence[float]) -> Fused:
        """Fuse the scores of an image. :param log_odds: (detectors,), the `Score.log_odds` of each"""
        logit = self.rule.fuse(log_odds)
        score = probability(logit)
        return Fused(score, decimal(logit), self.threshold.label(score, self.positive))


def common_positive(manifests: Sequence[Manifest]) -> str:
    """The label that all of the detectors give above their thresholds, e.g. `ai`.

    :raises EngineError: the detectors give different labels to a high score
    """
    first = manifests[0]
    for other in manifests[1:]:
        if other.positive != first.positive:
            raise EngineError(
                f"{visible(first.name)} calls images {first.positive}, and {visible(other.name)} {other.positive}: "
                "their scores cannot be fused, so run one at a time"
            )
    return first.positive


def _soft_or(log_odds: Iterable[float]) -> float:
    """Soft or: the odds of two are (1 + e^x)(1 + e^y) − 1 = e^x + e^y + e^(x + y), a sum without cancellation."""
    return reduce(lambda x, y: _lse((x, y, x + y)), sorted(log_odds))


def _mean_prob(log_odds: Sequence[float]) -> float:
    """The odds of the mean are Σ pᵢ / Σ (1 − pᵢ), and 1 − sigmoid(x) = sigmoid(−x)."""
    return _lse([_log_sigmoid(x) for x in log_odds]) - _lse([_log_sigmoid(-x) for x in log_odds])


def _lse(values: Sequence[float]) -> float:
    """Compute log Σ exp(values)."""
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


_FORMULAS: dict[Rule, Callable[[Sequence[float]], float]] = {
    Rule.SOFT_OR: _soft_or,
    Rule.MEAN_LOGIT: fmean,
    Rule.MAX_LOGIT: max,
    Rule.MEDIAN_LOGIT: median,
    Rule.LSE: _lse,
    Rule.MEAN_PROB: _mean_prob,
}
