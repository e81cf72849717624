"""Calibration turns a logit into a score that is a probability on images like those it was fitted on."""

import math
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

CLOSEST = 2.0**-53  # to 0 or 1 that an isotonic score counts as: the float64 before 1 is 1 − this
LARGEST_LOG_ODDS = 2.0**1000  # far above any logit of float32, and sums of many stay within float64

MOST_POINTS = 1 << 16  # of an isotonic curve

Score = Annotated[float, Meta(ge=0, le=1)]


class Platt(msgspec.Struct, frozen=True, tag_field="method", tag="platt"):
    """score = sigmoid(a · logit + b): Platt, Probabilistic outputs for support vector machines, 1999.

    :param a: above 0, so that the order of images stays
    :param source: where the two numbers come from
    """

    a: Annotated[float, Meta(gt=0)]
    b: float
    source: str

    def __post_init__(self) -> None:
        _check_finite(self.a, self.b)

    def apply(self, logit: float) -> float:
        """The calibrated score of a logit. :returns: in [0, 1]"""
        return sigmoid(self.log_odds(logit))

    def log_odds(self, logit: float) -> float:
        """The log-odds of the score; they are exact even if the score is very close to 0 or 1."""
        return self.a * logit + self.b


class Isotonic(msgspec.Struct, frozen=True, tag_field="method", tag="isotonic"):
    """score = a rising curve through points; it is straight between them and level before the first and after the last.

    :param logits: (K,) strictly rising, K at most MOST_POINTS
    :param scores: (K,) in [0, 1], never falling
    :param source: where the curve comes from
    """

    logits: Annotated[tuple[float, ...], Meta(min_length=1, max_length=MOST_POINTS)]
    scores: Annotated[tuple[Score, ...], Meta(max_length=MOST_POINTS)]
    source: str

    def __post_init__(self) -> None:
        _check_finite(*self.logits, *self.scores)
        if len(self.logits) != len(self.scores):
            raise ValueError(f"{len(self.logits)} logits for {len(self.scores)} scores")
        if np.any(np.diff(self.logits) <= 0) or np.any(np.diff(self.scores) < 0):
            raise ValueError("logits must rise strictly, and scores must never fall")

    def apply(self, logit: float) -> float:
        """The calibrated score of a logit. :returns: in [0, 1]"""
        return float(np.interp(logit, self.logits, self.scores))

    def log_odds(self, logit: float) -> float:
        """The log-odds of the interpolated score, after it is clipped to [CLOSEST, 1 − CLOSEST].

        :returns: within ±36.74, log((1 − CLOSEST) / CLOSEST)
        """
        score = min(max(self.apply(logit), CLOSEST), 1 - CLOSEST)
        return math.log(score) - math.log1p(-score)


Calibration = Platt | Isotonic


def probability(logit: float, calibration: Calibration | None = None) -> float:
    """The score of a logit: the calibrated score if there is a calibration, otherwise the sigmoid.

    :returns: in [0, 1], rounded to the digits that are written
    """
    return decimal(calibration.apply(logit) if calibration else sigmoid(logit))


def log_odds(logit: float, calibration: Calibration | None = None) -> float:
    """The log-odds log(score / (1 − score)) of a logit's score, before the score is rounded.

    :returns: without a calibration the logit itself; with Platt's a · logit + b; with an isotonic one those of the
        interpolated score; always within ±LARGEST_LOG_ODDS
    """
    exact = calibration.log_odds(logit) if calibration else logit
    return min(max(exact, -LARGEST_LOG_ODDS), LARGEST_LOG_ODDS)


def sigmoid(logit: float) -> float:
    """The sigmoid of a value, computed so that neither a large positive nor a large negative value overflows."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def decimal(value: float) -> float:
    """Round to 8 significant digits, all that fp32 holds, so that what is compared is exactly what is written."""
    return float(f"{value:.8g}")


def _check_finite(*values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError("a calibration's numbers must be finite")
