"""Calibration on labelled images: a curve that makes scores probabilities, a threshold, and their place on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from spai_runtime.calibration import Calibration, Isotonic, Platt
from spai_runtime.errors import UserError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.manifest import FILE_NAME, Manifest, Threshold
from spai_train import card
from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.bootstrap import Floats
from spai_train.evaluation.metrics import MARGIN, calibrate, images_needed, rate_allowed
from spai_train.evaluation.scored import ScoredTable

LOSSLESS = frozenset((".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"))


FINDS_LITTLE = 0.1  # of the AI-generated images: below, whoever uses the threshold must be told


class CalibrationError(UserError):
    """A calibration that is not possible, and what it would need."""


class Curve(StrEnum):
    """How a logit becomes a probability."""

    PLATT = "platt"
    ISOTONIC = "isotonic"

    @property
    def method(self) -> str:
        """The method's name in full."""
        return {Curve.PLATT: "Platt scaling", Curve.ISOTONIC: "isotonic regression"}[self]


@dataclass(frozen=True)
class Request:
    """What is to be calibrated: a curve, a threshold, or a curve and then a threshold on its scores.

    :param rate: the rate of false positives that the threshold shall keep, in (0, 1)
    """

    curve: Curve | None = None
    rate: float | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Request":
        """:param words: `platt`, `isotonic`, `fpr=0.01`
        :raises CalibrationError: there is another word, or two of a kind
        """
        curves = [Curve(word) for word in words if word in tuple(Curve)]
        rates = [_rate(word) for word in words if word not in tuple(Curve)]
        if len(curves) > 1 or len(rates) > 1:
            raise CalibrationError("--calibrate takes one curve (platt or isotonic) and one rate (fpr=RATE) at most")
        return cls(curves[0] if curves else None, rates[0] if rates else None)


@dataclass(frozen=True)
class Calibrated:
    """:param calibration: None leaves the score the sigmoid of the logit
    :param found: share of the AI-generated calibration images that score above the threshold; None where there are none
    """

    calibration: Calibration | None
    threshold: Threshold
    found: float | None = None

    @property
    def finds_little(self) -> bool:
        """Whether the threshold keeps away nearly all finds together with the false positives."""
        return self.found is not None and self.found < FINDS_LITTLE

    def write(self, directory: Path) -> None:
        """Puts both into detector.json, which is replaced in one step, and then into the model card beside it.

        :raises OSError: it cannot be written
        """
        manifest = replace(Manifest.load(directory), calibration=self.calibration, threshold=self.threshold)
        with atomic_write(directory / FILE_NAME) as part:
            part.write_bytes(manifest.dump())
        if not card.is_users(directory):
            card.write(manifest, directory)


def calibrate_on(table: ScoredTable, request: Request, before: Calibration | None, images: str) -> Calibrated:
    """Fits the curve and the threshold that are asked for.

    :param before: the calibration of the table's scores, which stays where no curve is asked for
    :param images: names the table for people, e.g. `the split val of a.csv`
    :raises CalibrationError: the images do not suffice
    """
    calibration = before
    if request.curve:
        calibration = fit(table, request.curve, images)
        table = table.calibrated(calibration)
    if request.rate is not None:
        threshold = find_threshold(table, request.rate, images)
    else:
        even = f"where both classes are equally likely, in the balance of {_balance(table, images)}"
        threshold = Threshold(0.5, even)
    generated = table.scores_of(GENERATED)
    found = float(np.mean(generated > threshold.value)) if generated.size else None
    return Calibrated(calibration, threshold, found)


def fit(table: ScoredTable, curve: Curve, images: str) -> Calibration:
    """:raises CalibrationError: there is one class alone, or logits do not rise from real to generated images"""
    if not (table.scores_of(REAL).size and table.scores_of(GENERATED).size):
        raise CalibrationError(f"--calibrate {curve} needs scored images of both classes, and {images} has one alone")
    logits, labels = table.logit[table.scored], table.label[table.scored]
    source = f"{curve.method} on {_balance(table, images)}"
    calibration = (fit_platt if curve is Curve.PLATT else fit_isotonic)(logits, labels, source)
    if calibration is None:
        raise CalibrationError(f"logits do not rise from the real to the AI-generated images of {images}")
    return calibration


def fit_platt(logits: ArrayLike, labels: ArrayLike, source: str) -> Platt | None:
    """Logistic regression on the logit, with Platt's targets: (N₊ + 1)/(N₊ + 2) for the N₊ generated images and
    1/(N₋ + 2) for the N₋ real ones. They keep the slope finite where the classes are apart.

    :param logits: (n,); labels: (n,) 1 generated
    :returns: None where the slope is not above 0
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    generated, real = np.count_nonzero(labels == 1), np.count_nonzero(labels == 0)
    target = np.where(labels == 1, (generated + 1) / (generated + 2), 1 / (real + 2))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    # A target t is t images of class 1 and 1 − t of class 0.
    classes = np.repeat((1, 0), logits.size)
    model.fit(np.tile(logits, 2)[:, None], classes, sample_weight=np.concatenate((target, 1 - target)))
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Platt(slope, offset, source) if slope > 0 else None


def fit_isotonic(logits: ArrayLike, labels: ArrayLike, source: str) -> Isotonic | None:
    """The rising curve that is nearest to the labels (pool adjacent violators).

    :returns: None where the curve is level
    """
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, labels)
    at, scores = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
    return Isotonic(tuple(at), tuple(scores), source) if scores[-1] > scores[0] else None


def find_threshold(table: ScoredTable, rate: float, images: str) -> Threshold:
    """The threshold that keeps the rate for lossless and for lossy files apart: in a mixture, one can hide the other.

    :raises CalibrationError: too few real images of a kind to tell whether the rate holds
    """
    kinds = _real_scores(table)
    needed = images_needed(rate)
    if not kinds:
        raise CalibrationError(f"a rate of false positives needs {needed} real images; {images} has none with a score")
    for kind, scores in kinds.items():
        if scores.size < needed:
            raise CalibrationError(
                f"{100 * rate:g}% false positives need {needed} {kind} real images to be told from luck, and {images} "
                f"has {scores.size}: add {needed - scores.size}, leave those out, or ask for the rate that they allow, "
                f"--calibrate fpr={rate_allowed(scores.size):g}"
            )
    counts = " and ".join(f"{scores.size} {kind}" for kind, scores in kinds.items())
    source = f"calibrated to at most {100 * rate:g}% false positives on {counts} real images of {images}"
    value = max(calibrate(scores, rate) for scores in kinds.values())
    return Threshold(value, f"{source}, less a margin of {MARGIN:g} standard errors")


def _rate(word: str) -> float:
    name, _, value = word.partition("=")
    try:
        rate = float(value) if name == "fpr" else 0.0
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise CalibrationError(f"--calibrate takes platt, isotonic or fpr=RATE, 0 < RATE < 1; {word} is none of them")
    return rate


def _real_scores(table: ScoredTable) -> dict[str, Floats]:
    """The scores of the real images by kind of file."""
    suffixes = [row.path.suffix.lower() for row in table.rows]
    lossless: NDArray[np.bool_] = np.array([suffix in LOSSLESS for suffix in suffixes], np.bool_)
    real = table.scored & (table.label == REAL)
    kinds = {"lossless": table.score[real & lossless], "lossy": table.score[real & ~lossless]}
    return {kind: scores for kind, scores in kinds.items() if scores.size}


def _balance(table: ScoredTable, images: str) -> str:
    generated = np.count_nonzero(table.label[table.scored])
    return f"{np.count_nonzero(table.scored) - generated} real and {generated} AI-generated images of {images}"
