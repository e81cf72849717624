"""How well scores separate real from generated images, with the uncertainty of a finite test set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A measured value and its bootstrap 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(real: ArrayLike, generated: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a generated image scores above a real one.

    :param real: (R,) scores of real images
    :param generated: (G,) scores of generated images
    :returns: in [0, 1]; 0.5 is chance
    """
    real, generated = np.asarray(real), np.asarray(generated)
    labels = np.repeat((0, 1), (real.size, generated.size))
    return float(roc_auc_score(labels, np.concatenate((real, generated))))


def bootstrap_auc(real: ArrayLike, generated: ArrayLike, seed: int, resamples: int = 1000) -> Interval:
    """The AUC, and its percentile interval over images drawn again with replacement, each class for itself.

    A resample weighs each image by how often it was drawn, so its AUC is a product of the weights with the table of
    who scores above whom.
    """
    real, generated = np.asarray(real), np.asarray(generated)
    above = (np.sign(generated - real[:, None]) + 1) / 2  # (R, G), a tie counts half
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(size, [1 / size] * size, resamples) / size for size in above.shape]  # (S, R), (S, G)
    resampled = ((weights[0] @ above) * weights[1]).sum(axis=1)
    return _interval(auc(real, generated), resampled)


def false_positive_rate(real: ArrayLike, threshold: float) -> float:
    """Share of real images whose score is above the threshold, strictly, as the runtime labels them."""
    return float(np.mean(np.asarray(real) > threshold))


def bootstrap_rate(scores: ArrayLike, threshold: float, seed: int, resamples: int = 1000) -> Interval:
    """Share of the scores above the threshold, and its percentile interval."""
    scores = np.asarray(scores)
    rate = false_positive_rate(scores, threshold)
    resampled = np.random.default_rng(seed).binomial(scores.size, rate, resamples) / scores.size
    return _interval(rate, resampled)


def calibrate(real: ArrayLike, rate: float, margin: float = 2.5) -> float:
    """A threshold that keeps the false positives of images not seen here under a rate.

    On the calibration set, the rate allowed is lower by `margin` standard errors of a share of that set's size, so
    that luck in drawing the set does not decide.

    :param real: (R,) scores of real images, in [0, 1]
    :param rate: the largest share of real images to call generated, in (0, 1)
    :returns: a threshold in [0, 1], halfway between two scores
    """
    ordered = np.sort(np.asarray(real, np.float64))[::-1]
    allowed = max(0, int(ordered.size * (rate - margin * np.sqrt(rate * (1 - rate) / ordered.size))))
    if allowed + 1 >= ordered.size:
        return float(ordered[-1])
    above = ordered[allowed - 1] if allowed else 1.0
    return float((above + ordered[allowed]) / 2) if above > ordered[allowed] else float(ordered[allowed])


def _interval(value: float, resampled: Scores) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, float(low), float(high))
