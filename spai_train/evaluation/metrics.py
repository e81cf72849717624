"""How well scores separate real from generated images, with the uncertainty of a finite test set."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from spai_train.evaluation.bootstrap import Floats, Interval, blocks, draw
from spai_train.evaluation.tally import Ranking, Tally, at_or_above

__all__ = ["METRICS", "Interval", "Metric", "Scores", "auc", "bootstrap_auc", "bootstrap_rate"]
__all__ += ["calibrate", "false_positive_rate", "images_needed"]

Scores = Floats
BINS = 15  # of the calibration error
MARGIN = 2.5  # standard errors between the rate that is asked for and the one allowed on the calibration set

Metric = Callable[[Tally, float], Floats]  # of a tally and the threshold, (S,)


def area(tally: Tally, _: float = 0) -> Floats:
    """AUC: the probability that a generated image scores above a real one, a tie counting half (Mann and Whitney)."""
    below = np.cumsum(tally.real, axis=1) - tally.real / 2
    above: Floats = np.einsum("su,su->s", tally.generated, below)
    return above / (tally.reals * tally.generateds)


def average_precision(tally: Tally, _: float = 0) -> Floats:
    """AP = Σ (recall step) · (precision there), where generated images are looked for; nothing is interpolated."""
    found = at_or_above(tally.generated)[:, :-1]
    flagged = found + at_or_above(tally.real)[:, :-1]
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    total: Floats = np.einsum("su,su->s", tally.generated, precision)
    return total / tally.generateds


def accuracy(tally: Tally, threshold: float) -> Floats:
    """The share of all images that are labelled rightly; it changes with the balance of the classes."""
    first = _first_above(tally, threshold)
    right: Floats = tally.real[:, :first].sum(axis=1) + tally.generated[:, first:].sum(axis=1)
    return right / tally.images


def balanced_accuracy(tally: Tally, threshold: float) -> Floats:
    """The mean of the shares of real and of generated images that are labelled rightly."""
    first = _first_above(tally, threshold)
    return (1 - tally.false_positives[:, first] + tally.true_positives[:, first]) / 2


def equal_error_rate(tally: Tally, _: float = 0) -> Floats:
    """The error where false positives are as frequent as misses, on the ROC curve drawn with straight lines."""
    excess = tally.false_positives + tally.true_positives - 1  # of false positives over misses: from 1 down to −1
    after = np.count_nonzero(excess > 0, axis=1)[:, None]
    (high, low), (left, right) = (
        (np.take_along_axis(values, after - 1, axis=1), np.take_along_axis(values, after, axis=1))
        for values in (excess, tally.false_positives)
    )
    return (left + (right - left) * high / (high - low))[:, 0]


def true_positives_at(rate: float, tally: Tally, _: float = 0) -> Floats:
    """The largest share of generated images found by a threshold with at most this rate of false positives."""
    first = np.count_nonzero(tally.false_positives > rate, axis=1)[:, None]
    return np.take_along_axis(tally.true_positives, first, axis=1)[:, 0]


def calibration_error(tally: Tally, _: float = 0) -> Floats:
    """ECE = Σ_b |Σ_{i∈b} (y_i − s_i)| / n over BINS equal bins of the score, y being 1 for a generated image.

    Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, 2015. It changes with the
    balance of the classes: a score can be a probability for one balance alone.
    """
    bins = np.minimum((tally.levels * BINS).astype(int), BINS - 1)
    starts = np.unique(bins, return_index=True)[1]
    surplus = tally.generated - tally.levels * (tally.real + tally.generated)
    gap: Floats = np.abs(np.add.reduceat(surplus, starts, axis=1)).sum(axis=1)
    return gap / tally.images


METRICS: dict[str, Metric] = {
    "auc": area,
    "average_precision": average_precision,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "equal_error_rate": equal_error_rate,
    "tpr_at_1_percent_fpr": partial(true_positives_at, 0.01),
    "tpr_at_5_percent_fpr": partial(true_positives_at, 0.05),
    "calibration_error": calibration_error,
}


def auc(real: ArrayLike, generated: ArrayLike) -> float:
    """The area under the ROC curve: the probability that a generated image scores above a real one.

    :param real: (R,) scores of real images
    :param generated: (G,) scores of generated images
    :returns: in [0, 1]; 0.5 is chance
    """
    return float(area(Ranking(real, generated).tally())[0])


def bootstrap_auc(real: ArrayLike, generated: ArrayLike, seed: int, resamples: int = 1000) -> Interval:
    """The AUC, and its percentile interval over images that are drawn again with replacement, class by class."""
    ranking, sizes = Ranking(real, generated), (np.size(real), np.size(generated))
    drawn = draw(sizes, resamples, seed)
    resampled = [area(ranking.tally(*(part[block] for part in drawn))) for block in blocks(sum(sizes), resamples)]
    return Interval.of(auc(real, generated), np.concatenate(resampled))


def false_positive_rate(real: ArrayLike, threshold: float) -> float:
    """The share of real images whose score is strictly above the threshold, as the runtime labels them."""
    return float(np.mean(np.asarray(real) > threshold))


def bootstrap_rate(scores: ArrayLike, threshold: float, seed: int, resamples: int = 1000) -> Interval:
    """The share of the scores above the threshold, and its percentile interval."""
    scores = np.asarray(scores)
    rate = false_positive_rate(scores, threshold)
    resampled = np.random.default_rng(seed).binomial(scores.size, rate, resamples) / scores.size
    return Interval.of(rate, resampled)


def calibrate(real: ArrayLike, rate: float, margin: float = MARGIN) -> float:
    """A threshold that keeps the false positives of images not seen here under a rate.

    On the calibration set, the allowed rate is lower by `margin` standard errors of a share in a set of that size, so
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


def images_needed(rate: float, margin: float = MARGIN) -> int:
    """How many real images `calibrate` needs, so that the margin alone is not more than the rate."""
    return math.ceil(margin**2 * (1 - rate) / rate)


def rate_allowed(images: int, margin: float = MARGIN) -> float:
    """The lowest rate that `calibrate` can be asked for with so many real images, rounded up to a thousandth."""
    return math.ceil(1000 * margin**2 / (margin**2 + images)) / 1000


def _first_above(tally: Tally, threshold: float) -> int:
    """The index of the first level that is labelled `ai`, which is strictly above the threshold."""
    return int(np.searchsorted(tally.levels, threshold, side="right"))
