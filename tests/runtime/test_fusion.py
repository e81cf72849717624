"""Fusion against its definition in exact fractions, and against GRIP's formulas in numpy."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.calibration import CLOSEST, Calibration, Isotonic, Platt, decimal, log_odds, probability, sigmoid
from spai_runtime.fusion import UNCALIBRATED, Fused, Fusion, Rule
from spai_runtime.manifest import Threshold

RULES = pytest.mark.parametrize("rule", list(Rule))
WIDE = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def defined(rule: Rule, logits: Sequence[float]) -> float:
    """The rule as it is written down, on probabilities: fractions, so that no 1 − p is rounded.

    Only exp and log are rounded, to 60 digits.
    """
    xs, count = sorted(map(Fraction, logits)), len(logits)
    middle = xs[(count - 1) // 2], xs[count // 2]
    with localcontext(prec=60):
        odds = [Fraction(Decimal(x).exp()) for x in logits]
        ps = [odd / (1 + odd) for odd in odds]
        match rule:
            case Rule.MEAN_LOGIT:
                return float(sum(xs) / count)
            case Rule.MAX_LOGIT:
                return float(xs[-1])
            case Rule.MEDIAN_LOGIT:
                return float(sum(middle) / 2)
            case Rule.LSE:
                return log(sum(odds, Fraction()))
            case Rule.MEAN_PROB:
                p = sum(ps, Fraction()) / count
            case Rule.SOFT_OR:
                p = 1 - math.prod(1 - p for p in ps)
        return log(p / (1 - p))


def log(value: Fraction) -> float:
    return float((Decimal(value.numerator) / Decimal(value.denominator)).ln())


@RULES
@given(logits=st.lists(st.floats(-60, 60), min_size=1, max_size=4))
def test_the_definition(rule: Rule, logits: list[float]) -> None:
    assert rule.fuse(logits) == pytest.approx(defined(rule, logits), rel=1e-14, abs=1e-14)


@RULES
@pytest.mark.parametrize(
    "logits",
    [(1e4, 1e4), (-1e4, -1e4), (1e4, -1e4), (-1e4, 0.5), (1e4, 0.5), (800.0, 801.5), (1e4, -746.0, -1e4)],
    ids=str,
)
def test_logits_without_bounds(rule: Rule, logits: tuple[float, ...]) -> None:
    expected = defined(rule, logits)
    assert math.isfinite(expected)
    assert rule.fuse(logits) == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert Fusion(rule).fuse(logits).score == pytest.approx(sigmoid(expected), rel=1e-7, abs=0)


def softminusinv(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """As GRIP names it: log p → the logit of p."""
    inverse: NDArray[np.float64] = x - np.log(-np.expm1(x))
    return inverse


GRIP: dict[Rule, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Rule.MEAN_LOGIT: lambda x: np.mean(x, -1),
    Rule.MAX_LOGIT: lambda x: np.max(x, -1),
    Rule.MEDIAN_LOGIT: lambda x: np.median(x, -1),
    Rule.LSE: lambda x: np.log(np.sum(np.exp(x), -1)),
    Rule.MEAN_PROB: lambda x: softminusinv(np.log(np.mean(1 / (1 + np.exp(-x)), -1))),
    Rule.SOFT_OR: lambda x: -softminusinv(np.sum(np.log(1 / (1 + np.exp(x))), -1)),
}


@RULES
def test_grips_formulas(rule: Rule) -> None:
    for detectors in range(1, 6):
        logits = np.random.default_rng(detectors).normal(0, 4, (50, detectors))
        found = [rule.fuse(row) for row in logits.tolist()]
        np.testing.assert_allclose(found, GRIP[rule](logits), rtol=1e-8, atol=1e-8)


def test_grips_default() -> None:
    assert Fusion().rule is Rule.SOFT_OR


@RULES
@given(logits=WIDE, data=st.data())
def test_the_order_of_detectors_does_not_matter(rule: Rule, logits: list[float], data: st.DataObject) -> None:
    assert rule.fuse(data.draw(st.permutations(logits))) == rule.fuse(logits)


@RULES
@given(logits=WIDE)
def test_bounds(rule: Rule, logits: list[float]) -> None:
    fused, largest, room = rule.fuse(logits), max(logits), 1e-11  # of roundings of 1e4
    assert min(logits) - room <= fused
    if rule is Rule.SOFT_OR:
        assert rule.fuse(logits) >= Rule.LSE.fuse(logits) - room
    elif rule is Rule.LSE:
        assert largest - room <= fused <= largest + math.log(len(logits)) + room
    else:
        assert fused <= largest + room


@RULES
@given(logits=WIDE, index=st.integers(0, 4), more=st.floats(0, 100))
def test_a_larger_logit_never_lowers_the_score(rule: Rule, logits: list[float], index: int, more: float) -> None:
    larger = [*logits]
    larger[index % len(logits)] += more
    assert rule.fuse(larger) >= rule.fuse(logits) - 1e-11
    assert Fusion(rule).fuse(larger).score >= Fusion(rule).fuse(logits).score * (1 - 1e-7)


@RULES
@given(logit=st.floats(-1e4, 1e4))
def test_a_detector_alone_keeps_its_score(rule: Rule, logit: float) -> None:
    assert Fusion(rule).fuse([logit]).score == pytest.approx(probability(logit), rel=2e-8, abs=0)
    if rule is not Rule.MEAN_PROB:  # which is a difference of two logarithms
        assert rule.fuse([logit]) == logit


@pytest.mark.parametrize("logits", [*itertools.product((-2.0, 0.0, 0.3), repeat=2)])
def test_labels_are_strict(logits: tuple[float, float]) -> None:
    score = Fusion(Rule.MEAN_PROB).fuse(logits).score
    for value in (score, math.nextafter(score, 0), math.nextafter(score, 1)):
        fused = Fusion(Rule.MEAN_PROB, Threshold(value, "test")).fuse(logits)
        assert fused == Fused(score, fused.logit, "ai" if score > value else "real")
    assert (decimal(score), decimal(fused.logit)) == (score, fused.logit)


def test_the_default_threshold_says_what_it_is_worth() -> None:
    assert Fusion(Rule.LSE).threshold is UNCALIBRATED
    assert UNCALIBRATED.value == 0.5
    assert "not calibrated" in UNCALIBRATED.source


def test_log_odds_without_calibration_are_the_logit() -> None:
    assert [log_odds(logit) for logit in (-1e4, -0.25, 0.0, 3e38)] == [-1e4, -0.25, 0.0, 3e38]


@given(logit=st.floats(-1e4, 1e4), a=st.floats(0.01, 10), b=st.floats(-10, 10))
def test_log_odds_of_a_platt_calibration(logit: float, a: float, b: float) -> None:
    platt = Platt(a, b, "test")
    assert log_odds(logit, platt) == a * logit + b
    assert probability(logit, platt) == probability(log_odds(logit, platt))


CURVE = Isotonic((-4.0, -1.0, 0.5, 2.0), (0.0, 0.125, 0.75, 1.0), "test")


@pytest.mark.parametrize(
    ("logit", "score"), [(-1.0, 0.125), (0.5, 0.75), (-0.25, 0.4375), (-2.5, 0.0625), (1.25, 0.875)]
)
def test_log_odds_of_an_isotonic_calibration(logit: float, score: float) -> None:
    assert log_odds(logit, CURVE) == pytest.approx(math.log(score / (1 - score)), rel=1e-14)


def test_a_certain_score_is_as_certain_as_float64_can_say() -> None:
    """At both ends alike, so that a 0 and a 1 cancel."""
    assert math.nextafter(1, 0) == 1 - CLOSEST
    assert log_odds(9.0, CURVE) == pytest.approx(53 * math.log(2), rel=1e-15)
    assert log_odds(-9.0, CURVE) == -log_odds(9.0, CURVE)
    assert (sigmoid(log_odds(9.0, CURVE)), sigmoid(log_odds(-9.0, CURVE))) == pytest.approx((1, 0), abs=1e-15)


@RULES
@pytest.mark.parametrize("calibration", [None, Platt(1e300, 1e300, "test"), CURVE], ids=["none", "platt", "isotonic"])
def test_any_logit_of_float32_fuses(rule: Rule, calibration: Calibration | None) -> None:
    largest = float(np.finfo(np.float32).max)
    for logits in itertools.product((-largest, 0.0, largest), repeat=3):
        fused = rule.fuse([log_odds(logit, calibration) for logit in logits])
        assert math.isfinite(fused), logits
