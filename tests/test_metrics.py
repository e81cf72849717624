"""Metrics against scikit-learn, plain resampling, and simulation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spai_train.metrics import auc, bootstrap_auc, bootstrap_rate, calibrate, false_positive_rate

RNG = np.random.default_rng(0)
REAL, GENERATED = RNG.normal(0, 1, 150).round(1), RNG.normal(1, 1, 120).round(1)  # rounded, for ties


def test_auc_is_that_of_scikit_learn() -> None:
    labels = np.r_[np.zeros(REAL.size), np.ones(GENERATED.size)]
    assert auc(REAL, GENERATED) == roc_auc_score(labels, np.r_[REAL, GENERATED])


def test_bootstrap_interval_is_that_of_plain_resampling() -> None:
    interval = bootstrap_auc(REAL, GENERATED, seed=1, resamples=2000)
    rng = np.random.default_rng(2)
    plain = [auc(rng.choice(REAL, REAL.size), rng.choice(GENERATED, GENERATED.size)) for _ in range(800)]
    assert interval.value == auc(REAL, GENERATED)
    np.testing.assert_allclose((interval.low, interval.high), np.quantile(plain, (0.025, 0.975)), atol=0.01)


def test_intervals_follow_from_their_seed_and_shrink_with_more_images() -> None:
    interval = bootstrap_auc(REAL, GENERATED, seed=1)
    assert interval == bootstrap_auc(REAL, GENERATED, seed=1)
    many = bootstrap_auc(np.tile(REAL, 4), np.tile(GENERATED, 4), seed=1)
    assert many.high - many.low < 0.7 * (interval.high - interval.low)


def test_separate_scores_have_no_uncertainty() -> None:
    interval = bootstrap_auc([0.1, 0.2], [0.8, 0.9], seed=0)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
    assert str(interval) == "1.000 [1.000, 1.000]"


def test_false_positives_are_above_the_threshold_strictly() -> None:
    assert false_positive_rate([0.1, 0.5, 0.6, 0.9], 0.5) == 0.5


def test_rate_interval_is_the_binomial_one() -> None:
    scores = np.repeat((0.9, 0.1), (30, 170))
    interval = bootstrap_rate(scores, 0.5, seed=0, resamples=5000)
    half = 1.96 * np.sqrt(0.15 * 0.85 / 200)
    assert interval.value == 0.15
    np.testing.assert_allclose((interval.low, interval.high), (0.15 - half, 0.15 + half), atol=0.006)


@pytest.mark.parametrize("size", [300, 400, 1000])
def test_calibrated_threshold_holds_on_images_not_seen(size: int) -> None:
    """Scores are uniform, so the true rate of a threshold is known: 1 − threshold."""
    rng = np.random.default_rng(size)
    thresholds = np.array([calibrate(rng.random(size), 0.05) for _ in range(500)])
    assert np.mean(1 - thresholds > 0.05) < 0.02
    assert np.median(1 - thresholds) > 0.005


def test_calibration_allows_fewer_than_the_rate_on_its_own_images() -> None:
    scores = np.arange(400) / 400
    threshold = calibrate(scores, 0.05, margin=2.0)
    assert false_positive_rate(scores, threshold) == 11 / 400  # ⌊400 · (0.05 − 2·√(0.05·0.95/400))⌋
    assert calibrate(scores, 0.05, margin=0.0) < threshold


def test_few_or_tied_scores_still_give_a_threshold() -> None:
    assert false_positive_rate([0.7] * 10, calibrate([0.7] * 10, 0.05)) == 0
    assert false_positive_rate([0.3, 0.4], calibrate([0.3, 0.4], 0.05)) == 0
