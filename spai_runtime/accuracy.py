"""The accuracy check: does a detector give the scores of its fp32 reference on real images?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_runtime.manifest import Accuracy, Spread
from spai_runtime.results import Score
from spai_runtime.scoring.pipeline import score_all

LIMIT = 0.01  # of |Δscore|, for a graph or plan that may be called verified


class AccuracyError(UserError):
    """Scores that cannot be compared; why, in one sentence."""


class AccuracyCheck:
    """Images and what the fp32 reference says of them, with which any number of detectors is compared.

    :param reference: in fp32
    :param paths: of images; those that cannot be scored are left out
    :param source: where they are from, for people
    :param against: what the reference is, for people
    :raises AccuracyError: none could be scored
    """

    def __init__(self, reference: Detector, paths: Sequence[Path], source: str, against: str) -> None:
        scores = {path: score for path, score in _scores(reference, paths) if score is not None}
        if not scores:
            raise AccuracyError(f"no image of {source} can be scored: give a folder of photographs")
        self.paths, self._expected, self._source, self._against = list(scores), list(scores.values()), source, against

    def compare(self, detector: Detector) -> Accuracy:
        """:raises AccuracyError: the detector cannot score what the reference did"""
        found = [score for _, score in _scores(detector, self.paths)]
        scores = [score for score in found if score is not None]
        if len(scores) < len(found):
            raise AccuracyError(f"{len(found) - len(scores)} of {len(found)} images get no score in lower precision")
        return accuracy(scores, self._expected, detector.encoder.label, self._source, self._against)


def accuracy(scores: Sequence[Score], expected: Sequence[Score], engine: str, source: str, against: str) -> Accuracy:
    """How far scores are from those of the reference, in numbers of three digits.

    They pass where each is within LIMIT, and not where one is NaN.

    :param engine: what computed the scores
    :param source: where the images are from
    :param against: what computed the expected ones
    """
    pairs = list(zip(scores, expected, strict=True))
    differences = np.array([abs(found.score - wanted.score) for found, wanted in pairs])
    return Accuracy(
        against=against,
        engine=engine,
        images=len(scores),
        views=sum(len(score.layout) for score in scores),
        source=source,
        score_difference=Spread(_rounded(differences.max()), _rounded(np.percentile(differences, 99))),
        logit_difference=_rounded(max(abs(found.logit - wanted.logit) for found, wanted in pairs)),
        labels_changed=sum(found.label != wanted.label for found, wanted in pairs),
        limit=LIMIT,
        passed=bool(differences.max() <= LIMIT),
    )


def sentence(found: Accuracy, reference: str = "fp32") -> str:
    """What the user is told of it."""
    spread = f"at most {found.score_difference.largest:.1e}, 99th percentile {found.score_difference.p99:.1e}"
    images = f"{found.labels_changed} labels changed, on {found.images} images of {found.source}"
    return f"|Δscore| from {reference}: {spread}, {images}"


def examples() -> Path:
    """The example images: inside an installed wheel, or in a checkout."""
    package = Path(__file__).parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def _rounded(value: float) -> float:
    return float(f"{value:.2e}")


def _scores(detector: Detector, paths: Sequence[Path]) -> list[tuple[Path, Score | None]]:
    return [(result.item.path, result.score) for result in score_all(detector, paths)]
