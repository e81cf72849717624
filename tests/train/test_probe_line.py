"""The linear layer of a probe, against scikit-learn's own scaler, solvers and calibration on the same features."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearns
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from spai_train.probing.line import PENALTIES, Examples, Line, ProbeError, fit_line, log_loss
from spai_train.probing.options import Classifier


def examples(count: int, seed: int, *, width: int = 12) -> Examples:
    """Features of all scales and offsets, of which the first tell a little of the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    features = random.normal(size=(count, width))
    features[:, :3] += 0.8 * labels[:, None]
    return Examples((features * 10.0 ** np.linspace(-3, 2, width) + np.arange(width)).astype(np.float32), labels)


TRAINING, VALIDATION = examples(300, 0), examples(200, 1)


def said(line: Line, features: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(features.astype(np.float64) @ line.weight + line.bias)


def test_logistic_regression_is_scikit_learns() -> None:
    """By another solver, which is exact, and its own scaler."""
    models = []
    for penalty in PENALTIES:
        logistic = LogisticRegression(C=penalty, solver="newton-cholesky", tol=1e-10)
        models.append(make_pipeline(StandardScaler(), logistic).fit(TRAINING.features.astype(float), TRAINING.labels))
    chosen, loss, expected = least(models)
    line = fit_line(Classifier.LOGISTIC, TRAINING, VALIDATION, 0)
    assert (line.penalty, line.loss) == (chosen, pytest.approx(loss, abs=1e-4))
    assert chosen not in (PENALTIES[0], PENALTIES[-1])
    np.testing.assert_allclose(said(line, VALIDATION.features), expected, atol=2e-3)


def test_an_svm_is_scikit_learns_with_its_calibration() -> None:
    models = []
    for penalty in PENALTIES:
        svm = make_pipeline(StandardScaler(), LinearSVC(C=penalty, random_state=0, max_iter=10_000))
        svm.fit(TRAINING.features.astype(float), TRAINING.labels)
        calibrated = CalibratedClassifierCV(FrozenEstimator(svm), method="sigmoid", ensemble=False)
        models.append(calibrated.fit(VALIDATION.features.astype(float), VALIDATION.labels))
    _, loss, expected = least(models)
    line = fit_line(Classifier.SVM, TRAINING, VALIDATION, 0)
    assert line.loss == pytest.approx(loss, abs=1e-3)
    np.testing.assert_allclose(said(line, VALIDATION.features), expected, atol=0.02)


def least(models: list[Pipeline]) -> tuple[float, float, NDArray[np.float64]]:
    """The penalty whose log-loss on the validation images is the least, that, and their log-odds."""
    found = [model.predict_proba(VALIDATION.features.astype(float))[:, 1] for model in models]
    losses = [sklearns(VALIDATION.labels, probabilities) for probabilities in found]
    index = int(np.argmin(losses))
    return PENALTIES[index], losses[index], np.log(found[index] / (1 - found[index]))


def test_log_loss() -> None:
    logits, labels = np.array([-800.0, 0, 3, 2]), np.array([0, 1, 1, 0])
    assert log_loss(logits[1:], labels[1:]) == pytest.approx(sklearns(labels[1:], 1 / (1 + np.exp(-logits[1:]))))
    assert log_loss(logits, labels) == pytest.approx(0.75 * log_loss(logits[1:], labels[1:]))
    assert log_loss(-logits[:1], labels[:1]) == 800


def test_features_that_say_nothing_weigh_nothing() -> None:
    """One that is the same for all, and one whose differences float32 does not hold: their scale would be huge."""
    ones = np.full((300, 1), 7.25, np.float32)
    rounding = np.nextafter(np.float32(1000), np.float32(2000) * (np.arange(300) % 2)[:, None], dtype=np.float32)
    wider = Examples(np.hstack((TRAINING.features, ones, rounding)), TRAINING.labels)
    held_out = np.hstack((VALIDATION.features, ones[:200] + 1, rounding[:200] + 1))
    line = fit_line(Classifier.LOGISTIC, wider, Examples(held_out, VALIDATION.labels), 0)
    assert line.weight[-2:].tolist() == [0, 0]
    plain = fit_line(Classifier.LOGISTIC, TRAINING, VALIDATION, 0)
    np.testing.assert_allclose(said(line, held_out), said(plain, VALIDATION.features), atol=1e-3)


def test_margins_that_fall() -> None:
    with pytest.raises(
        ProbeError, match="margins do not rise from the real to the AI-generated images of the split val"
    ):
        fit_line(Classifier.SVM, TRAINING, Examples(VALIDATION.features, 1 - VALIDATION.labels), 0)
