"""Calibration against the likelihood that it maximises, and on images with known rates."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from spai_runtime.calibration import Isotonic, Platt, probability
from spai_runtime.manifest import Manifest, Threshold
from spai_train.data.table import Row
from spai_train.evaluation.calibration import (
    Calibrated,
    CalibrationError,
    Curve,
    Request,
    calibrate_on,
    find_threshold,
    fit_isotonic,
    fit_platt,
)
from spai_train.evaluation.metrics import calibrate, false_positive_rate, images_needed, rate_allowed
from spai_train.evaluation.scored import ScoredTable

Array = NDArray[np.float64]
IMAGES = "the split val of a.csv"


def logits_of(seed: int, real: int, generated: int) -> tuple[Array, Array]:
    """Logits and labels of two overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat((0.0, 1.0), (real, generated))
    return rng.normal(6 * labels - 5, 2).round(2), labels


def table_of(logits: Array, labels: Array, suffix: str = ".png", errors: int = 0) -> ScoredTable:
    """The last `errors` of the images could not be scored."""
    rows = tuple(
        Row(f"{index}{suffix}", Path(f"{index}{suffix}"), int(label), "", "s") for index, label in enumerate(labels)
    )
    scores = np.array([probability(logit) for logit in logits.tolist()])
    known = len(rows) - errors
    scores[known:] = np.nan
    logits = np.where(np.isnan(scores), np.nan, logits)
    return ScoredTable(rows, scores, logits, logits, ("",) * known + ("broken",) * errors)


def joined(*tables: ScoredTable) -> ScoredTable:
    return ScoredTable(
        tuple(row for table in tables for row in table.rows),
        np.concatenate([table.score for table in tables]),
        np.concatenate([table.logit for table in tables]),
        np.concatenate([table.log_odds for table in tables]),
        tuple(error for table in tables for error in table.errors),
    )


@pytest.mark.parametrize(("real", "generated"), [(120, 80), (15, 400)])
def test_platt_is_the_likeliest_sigmoid_of_platts_targets(real: int, generated: int) -> None:
    logits, labels = logits_of(1, real, generated)
    targets = np.where(labels == 1, (generated + 1) / (generated + 2), 1 / (real + 2))

    def loss(parameters: Array) -> float:
        margin = parameters[0] * logits + parameters[1]
        return float(np.sum(np.logaddexp(0, margin) - targets * margin))

    expected = minimize(
        loss, (1.0, 0.0), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 5000}
    )
    found = fit_platt(logits, labels, "test")
    assert found is not None
    np.testing.assert_allclose((found.a, found.b), expected.x, rtol=0, atol=1e-6)
    assert found.source == "test"


def test_platt_is_finite_where_the_classes_are_apart() -> None:
    found = fit_platt([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1], "test")
    assert found is not None
    assert 0 < found.a < 2
    assert found.apply(3.0) == pytest.approx(1 - found.apply(-3.0))


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_logits_that_do_not_rise_have_no_curve(fit: object) -> None:
    assert callable(fit)
    assert fit([3.0, 2.0, -2.0, -3.0], [0, 0, 1, 1], "test") is None


def test_isotonic_is_the_nearest_rising_curve() -> None:
    logits, labels = logits_of(2, 90, 110)
    found = fit_isotonic(logits, labels, "test")
    assert found is not None
    levels, places, counts = np.unique(logits, return_inverse=True, return_counts=True)
    shares = np.bincount(places, labels) / counts
    expected = isotonic_regression(shares, weights=counts).x
    np.testing.assert_allclose([found.apply(level) for level in levels.tolist()], expected, rtol=0, atol=1e-12)
    assert (found.apply(-1e6), found.apply(1e6)) == (expected[0], expected[-1])


def test_a_calibrated_score_is_as_often_right_as_it_says() -> None:
    logits, labels = logits_of(3, 20_000, 10_000)
    table = table_of(logits, labels)
    for curve in Curve:
        calibrated = calibrate_on(table, Request(curve), None, IMAGES)
        score = table.calibrated(calibrated.calibration).score
        for low in (0.1, 0.3, 0.5, 0.7):
            inside = (score >= low) & (score < low + 0.2)
            assert inside.sum() > 300
            assert labels[inside].mean() == pytest.approx(score[inside].mean(), abs=0.05)
        assert calibrated.threshold == Threshold(
            0.5,
            "where both classes are equally likely, in the balance of 20000 real and 10000 AI-generated images of "
            "the split val of a.csv",
        )


def test_images_without_a_score_are_left_out() -> None:
    logits, labels = logits_of(4, 60, 40)
    expected = fit_platt(logits[:95], labels[:95], "Platt scaling on 60 real and 35 AI-generated images of x")
    found = calibrate_on(table_of(logits, labels, errors=5), Request(Curve.PLATT), None, "x")
    assert found.calibration == expected


def test_a_threshold_on_calibrated_scores() -> None:
    logits, labels = logits_of(5, 500, 200)
    table = table_of(logits, labels)
    found = calibrate_on(table, Request(Curve.PLATT, 0.05), None, IMAGES)
    scores = [probability(logit, found.calibration) for logit in logits[labels == 0].tolist()]
    assert found.threshold.value == calibrate(scores, 0.05)
    assert 0 < false_positive_rate(scores, found.threshold.value) < 0.05
    assert found.threshold.source == (
        "calibrated to at most 5% false positives on 500 lossless real images of the split val of a.csv, less a margin "
        "of 2.5 standard errors"
    )


def test_a_rate_alone_keeps_the_curve_that_was_there() -> None:
    before = Platt(2.0, 1.0, "before")
    logits, labels = logits_of(6, 300, 0)
    table = table_of(logits, labels).calibrated(before)
    found = calibrate_on(table, Request(rate=0.05), before, IMAGES)
    assert found.calibration == before
    assert found.threshold.value == calibrate(table.score, 0.05)


def test_the_threshold_holds_for_lossless_and_lossy_files_apart() -> None:
    rng = np.random.default_rng(7)
    png, jpeg = (
        table_of(rng.normal(mean, 1, 1000), np.zeros(1000), suffix) for mean, suffix in ((-4, ".PNG"), (0, ".jpg"))
    )
    threshold = find_threshold(joined(png, jpeg), 0.05, IMAGES)
    assert threshold.value == calibrate(jpeg.score, 0.05) > calibrate(png.score, 0.05)
    assert "on 1000 lossless and 1000 lossy real images of" in threshold.source
    mixed = calibrate(np.concatenate((png.score, jpeg.score)), 0.05)
    assert false_positive_rate(jpeg.score, mixed) > 0.05 > false_positive_rate(jpeg.score, threshold.value)


def test_too_few_images_say_how_many_it_takes() -> None:
    png, jpeg = table_of(np.zeros(700), np.zeros(700)), table_of(np.zeros(50), np.zeros(50), ".webp")
    with pytest.raises(CalibrationError, match=r"1% .* need 619 lossy real images .* has 50: add 569, .* fpr=0\.112$"):
        find_threshold(joined(png, jpeg), 0.01, IMAGES)
    with pytest.raises(CalibrationError, match=r"needs 119 real images; the split val of a\.csv has none with a score"):
        find_threshold(table_of(np.zeros(5), np.ones(5)), 0.05, IMAGES)
    assert find_threshold(png, 0.01, IMAGES).value == 0.75  # no false positive is allowed: halfway from 0.5 to 1


@pytest.mark.parametrize("images", [1, 6, 50, 118, 119, 620, 100_000])
def test_the_rate_that_is_proposed_is_the_lowest_that_is_taken(images: int) -> None:
    rate = rate_allowed(images)
    assert images_needed(rate) <= images < images_needed(rate - 0.001 if rate > 0.001 else 1e-9)
    assert rate <= 0.05 or images < 119


@pytest.mark.parametrize(("apart", "found", "little"), [(9.0, 1.0, False), (0.0, 0.0, True), (None, None, False)])
def test_what_the_threshold_finds_is_said(apart: float | None, found: float | None, little: bool) -> None:
    real = np.linspace(-1, 1, 200)
    generated = np.zeros(0) if apart is None else np.full(20, -2.0 + apart)
    table = table_of(np.concatenate((real, generated)), np.repeat((0, 1), (200, generated.size)))
    calibrated = calibrate_on(table, Request(rate=0.05), None, IMAGES)
    assert (calibrated.found, calibrated.finds_little) == (found, little)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["platt"], Request(Curve.PLATT)),
        (["isotonic"], Request(Curve.ISOTONIC)),
        (["fpr=0.01"], Request(rate=0.01)),
        (["fpr=1e-3", "platt"], Request(Curve.PLATT, 0.001)),
    ],
)
def test_requests(words: list[str], expected: Request) -> None:
    assert Request.parse(words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["beta"],
        ["fpr"],
        ["fpr="],
        ["fpr=0"],
        ["fpr=1"],
        ["fpr=nan"],
        ["tpr=0.5"],
        ["platt", "isotonic"],
        ["fpr=.1", "fpr=.1"],
    ],
)
def test_what_is_no_request(words: list[str]) -> None:
    with pytest.raises(CalibrationError, match="--calibrate takes"):
        Request.parse(words)


def test_one_class_has_no_curve() -> None:
    with pytest.raises(CalibrationError, match=r"--calibrate platt needs scored images of both classes, and the split"):
        calibrate_on(table_of(np.zeros(5), np.ones(5)), Request(Curve.PLATT), None, IMAGES)


def test_logits_the_wrong_way_round() -> None:
    table = table_of(np.array([2.0, 1.0, -1.0, -2.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    with pytest.raises(
        CalibrationError, match="logits do not rise from the real to the AI-generated images of the split"
    ):
        calibrate_on(table, Request(Curve.ISOTONIC), None, IMAGES)


def test_only_the_calibration_and_the_threshold_of_a_manifest_change(tiny_detector: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(tiny_detector, tmp_path / "engine"))
    before = Manifest.load(engine)
    curve, threshold = Isotonic((0.0, 0.1 + 0.2), (0.25, 1 / 3), "curve"), Threshold(0.3, "threshold")
    Calibrated(curve, threshold).write(engine)
    assert Manifest.load(engine) == replace(before, calibration=curve, threshold=threshold)
    Calibrated(None, before.threshold).write(engine)
    assert Manifest.load(engine) == before
    assert sorted(path.name for path in engine.iterdir()) == sorted(path.name for path in tiny_detector.iterdir())
