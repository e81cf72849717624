"""Metrics against scikit-learn, plain resampling, and simulation."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

from spai_train.evaluation import bootstrap
from spai_train.evaluation.bootstrap import blocks, draw
from spai_train.evaluation.metrics import (
    METRICS,
    auc,
    bootstrap_auc,
    bootstrap_rate,
    calibrate,
    false_positive_rate,
    images_needed,
)
from spai_train.evaluation.tally import Ranking

RNG = np.random.default_rng(0)
REAL, GENERATED = RNG.normal(0, 1, 150).round(1), RNG.normal(1, 1, 120).round(1)  # rounded, for ties

Array = NDArray[np.float64]


def scores(seed: int, real: int, generated: int, digits: int = 12) -> tuple[Array, Array]:
    """In [0, 1]; few digits make ties."""
    rng = np.random.default_rng(seed)
    return rng.beta(1, 2, real).round(digits), rng.beta(2, 1, generated).round(digits)


CASES = {
    "ties": scores(1, 150, 120, digits=1),
    "distinct": scores(2, 301, 77),
    "many generated": scores(3, 5, 400, digits=2),
    "apart": (np.array([0.1, 0.2]), np.array([0.8, 0.9, 0.95])),
    "wrong way round": (np.array([0.8, 0.9, 1.0]), np.array([0.0, 0.1])),
    "constant": (np.full(4, 0.5), np.full(3, 0.5)),
    "one of each": (np.array([0.3]), np.array([0.6])),
}


def tpr_at(labels: Array, values: Array, rate: float) -> float:
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    return float(true[false <= rate].max())


def equal_error(labels: Array, values: Array) -> float:
    """Bisection on the ROC curve as scikit-learn draws it, walked along its length."""
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    low, high = 0.0, float(len(false) - 1)
    steps = np.arange(len(false))
    for _ in range(100):
        middle = (low + high) / 2
        excess = np.interp(middle, steps, false) - (1 - np.interp(middle, steps, true))
        low, high = (middle, high) if excess < 0 else (low, middle)
    return float(np.interp(high, steps, false))


def expected_calibration_error(labels: Array, values: Array) -> float:
    """As it is usually written: by bins, |accuracy − confidence| weighed by the images."""
    error = 0.0
    for index in range(15):
        inside = np.array([min(int(value * 15), 14) == index for value in values])
        if inside.any():
            error += inside.mean() * abs(labels[inside].mean() - values[inside].mean())
    return float(error)


REFERENCES: dict[str, Callable[[Array, Array, float], float]] = {
    "auc": lambda labels, values, _: roc_auc_score(labels, values),
    "average_precision": lambda labels, values, _: average_precision_score(labels, values),
    "accuracy": lambda labels, values, threshold: accuracy_score(labels, values > threshold),
    "balanced_accuracy": lambda labels, values, threshold: balanced_accuracy_score(labels, values > threshold),
    "equal_error_rate": lambda labels, values, _: equal_error(labels, values),
    "tpr_at_1_percent_fpr": lambda labels, values, _: tpr_at(labels, values, 0.01),
    "tpr_at_5_percent_fpr": lambda labels, values, _: tpr_at(labels, values, 0.05),
    "calibration_error": lambda labels, values, _: expected_calibration_error(labels, values),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.6, 1.0])
def test_a_metric_is_that_of_scikit_learn(name: str, case: str, threshold: float) -> None:
    real, generated = CASES[case]
    labels = np.repeat((0.0, 1.0), (real.size, generated.size))
    expected = REFERENCES[name](labels, np.concatenate((real, generated)), threshold)
    (found,) = METRICS[name](Ranking(real, generated).tally(), threshold)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("digits", [1, 12])
def test_a_resample_is_the_images_drawn(name: str, digits: int) -> None:
    """Weights against images that are there as often as they were drawn."""
    parts = scores(4, 60, 45, digits)
    drawn = draw([part.size for part in parts], 40, seed=5)
    found = METRICS[name](Ranking(*parts).tally(*drawn), 0.5)
    for index, value in enumerate(found):
        repeated = [np.repeat(part, counts[index]) for part, counts in zip(parts, drawn, strict=True)]
        labels = np.repeat((0.0, 1.0), [part.size for part in repeated])
        assert value == pytest.approx(REFERENCES[name](labels, np.concatenate(repeated), 0.5), abs=1e-12)


def test_a_draw_is_multinomial_and_the_same_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (30, 1, 11)
    drawn = draw(sizes, 500, seed=3)
    rng = np.random.default_rng(3)
    for counts, size in zip(drawn, sizes, strict=True):
        np.testing.assert_array_equal(counts, rng.multinomial(size, np.full(size, 1 / size), 500))
    monkeypatch.setattr(bootstrap, "CELLS", 64)
    for counts, again in zip(drawn, draw(sizes, 500, seed=3), strict=True):
        np.testing.assert_array_equal(counts, again)


@pytest.mark.parametrize(("images", "resamples"), [(1, 10), (1 << 19, 5), (1 << 22, 3), (0, 2)])
def test_blocks_cover_the_resamples_in_bounded_memory(images: int, resamples: int) -> None:
    found = [range(resamples)[block] for block in blocks(images, resamples)]
    assert [index for part in found for index in part] == list(range(resamples))
    assert all(len(part) * images <= max(bootstrap.CELLS, images) for part in found)


def test_the_interval_of_an_auc_is_that_of_a_slow_loop() -> None:
    interval = bootstrap_auc(REAL, GENERATED, seed=1, resamples=150)
    drawn = draw((REAL.size, GENERATED.size), 150, seed=1)
    slow = [auc(np.repeat(REAL, real), np.repeat(GENERATED, generated)) for real, generated in zip(*drawn, strict=True)]
    assert interval.value == auc(REAL, GENERATED)
    np.testing.assert_allclose((interval.low, interval.high), np.quantile(slow, (0.025, 0.975)), rtol=0, atol=1e-12)


def test_the_interval_of_an_auc_is_as_wide_as_delongs() -> None:
    """DeLong, DeLong and Clarke-Pearson, 1988: the variance from each image's share of the AUC."""
    rng = np.random.default_rng(7)
    real, generated = rng.normal(0, 1, 800), rng.normal(1.2, 1, 500)
    above = generated > real[:, None]
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 800 + above.mean(axis=0).var(ddof=1) / 500)
    interval = bootstrap_auc(real, generated, seed=0, resamples=4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert (interval.high + interval.low) / 2 == pytest.approx(interval.value, abs=error / 5)


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    """The true AUC of two normal distributions a standard deviation apart is Φ(1/√2)."""
    rng, truth = np.random.default_rng(8), 0.7602499389
    intervals = [bootstrap_auc(rng.normal(0, 1, 60), rng.normal(1, 1, 60), seed, resamples=200) for seed in range(400)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.90 < covered < 0.98  # ±3.5 standard errors of 400 intervals; percentile intervals are a little narrow


def test_auc_is_that_of_scikit_learn() -> None:
    labels = np.r_[np.zeros(REAL.size), np.ones(GENERATED.size)]
    assert auc(REAL, GENERATED) == pytest.approx(roc_auc_score(labels, np.r_[REAL, GENERATED]), abs=1e-12)


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


@pytest.mark.parametrize("rate", [0.3, 0.05, 0.01, 0.001])
def test_enough_images_are_those_whose_margin_is_within_the_rate(rate: float) -> None:
    def margin(size: int) -> float:
        return 2.5 * float(np.sqrt(rate * (1 - rate) / size))

    needed = images_needed(rate)
    assert margin(needed) <= rate * (1 + 1e-12)
    assert margin(needed - 1) > rate
