"""The linear layer of a probe: scikit-learn's classifiers on standardised features, folded into one weight and bias."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from spai_runtime.errors import UserError
from spai_train.evaluation.calibration import fit_platt
from spai_train.probing.options import Classifier

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

PENALTIES = tuple(10.0**exponent for exponent in range(-6, 3))  # scikit-learn's C, the strongest penalty first
CONSTANT = 1e-5  # of a feature's mean: float32 holds no differences to learn from that are much smaller
TOLERANCE = 1e-5  # of the gradient of the mean log-loss
ITERATIONS = 10_000


class ProbeError(UserError):
    """Features that no classifier can be fitted to, and what to do about it."""


@dataclass(frozen=True)
class Examples:
    """:param features: (B, D)
    :param labels: (B,) 0 real, 1 AI-generated
    """

    features: NDArray[np.float32]
    labels: Labels

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has."""
        generated = int(np.count_nonzero(self.labels))
        return {"real": len(self.labels) - generated, "generated": generated}

    def __str__(self) -> str:
        return "{real} real and {generated} AI-generated images".format(**self.counts)


@dataclass(frozen=True)
class Line:
    """logit = features · weight + bias, in log-odds.

    :param weight: (D,)
    :param penalty: the C that it was fitted with
    :param loss: the log-loss of the validation images
    """

    weight: Floats
    bias: float
    penalty: float
    loss: float


@dataclass(frozen=True)
class Standardised:
    """Makes features of mean 0 and deviation 1 on the training images; one that is the same for all becomes 0.

    :param mean, scale: (D,)
    """

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> "Standardised":
        """:param features: (B, D)"""
        mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        varies = deviation > CONSTANT * np.abs(mean)
        return cls(mean, np.divide(1, deviation, out=np.zeros_like(deviation), where=varies))

    def __call__(self, features: NDArray[np.float32]) -> Floats:
        standard: Floats = (features - self.mean) * self.scale
        return standard

    def folded(self, weight: Floats, bias: float) -> tuple[Floats, float]:
        """Turns a layer on standardised features into one on the features themselves."""
        raw = weight * self.scale
        return raw, bias - float(raw @ self.mean)


Fitted = tuple[float, Floats, float]  # penalty, weight and bias


def fit_line(classifier: Classifier, training: Examples, validation: Examples, seed: int) -> Line:
    """The line of all PENALTIES with the least log-loss on the validation images; the first of equal ones.

    :param training, validation: examples of both classes
    :param seed: the seed of the SVM's draws
    :raises ProbeError: margins do not rise from the real to the AI-generated validation images
    """
    standardised = Standardised.of(training.features)
    fits = _FITS[classifier](standardised(training.features), training.labels, seed)
    lines = [
        _line(classifier, *standardised.folded(weight, bias), penalty, validation) for penalty, weight, bias in fits
    ]
    found = [line for line in lines if line is not None]
    if not found:
        raise ProbeError("the SVM's margins do not rise from the real to the AI-generated images of the split val")
    return min(found, key=lambda line: line.loss)


def log_loss(logits: Floats, labels: Labels) -> float:
    """The mean of −log p over images, p the probability of an image's own class."""
    return float(np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean())


def _line(classifier: Classifier, weight: Floats, bias: float, penalty: float, validation: Examples) -> Line | None:
    """A fitted line; None where an SVM's margins do not rise with the label."""
    margins = validation.features @ weight + bias
    slope, offset = 1.0, 0.0
    if classifier is Classifier.SVM:  # a margin is no log-odds: Platt's sigmoid makes them of it
        curve = fit_platt(margins, validation.labels, "")
        if curve is None:
            return None
        slope, offset = curve.a, curve.b
    return Line(slope * weight, slope * bias + offset, penalty, log_loss(slope * margins + offset, validation.labels))


def _logistic(features: Floats, labels: Labels, _: int) -> Iterator[Fitted]:
    """Logistic regressions, each of which begins where the one before ended."""
    model = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)
    for penalty in PENALTIES:
        model.set_params(C=penalty).fit(features, labels)
        yield penalty, model.coef_[0].copy(), float(model.intercept_[0])


def _svm(features: Floats, labels: Labels, seed: int) -> Iterator[Fitted]:
    for penalty in PENALTIES:
        model = LinearSVC(C=penalty, dual="auto", max_iter=ITERATIONS, random_state=seed)
        with warnings.catch_warnings(
            action="ignore", category=ConvergenceWarning
        ):  # val says whether it is good enough
            model.fit(features, labels)
        yield penalty, model.coef_[0], float(model.intercept_[0])


_FITS: dict[Classifier, Callable[[Floats, Labels, int], Iterator[Fitted]]] = {
    Classifier.LOGISTIC: _logistic,
    Classifier.SVM: _svm,
}
