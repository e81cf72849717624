"""The accuracy of a detector: how far its scores are from those of fp32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spai_runtime.manifest import Accuracy, Spread
from spai_runtime.results import Score

LIMIT = 0.01  # of |Δscore|, for a graph or plan that may be called verified


def accuracy(scores: Sequence[Score], expected: Sequence[Score], engine: str, source: str, against: str) -> Accuracy:
    """Compare scores with those of the reference; the numbers that come out have three digits.

    The comparison passes if each score is within LIMIT; it fails if one is NaN.

    :param engine: name of what computed the scores
    :param source: where the images come from
    :param against: name of what computed the expected scores
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
    """One sentence that tells the user what was found."""
    spread = f"at most {found.score_difference.largest:.1e}, 99th percentile {found.score_difference.p99:.1e}"
    images = f"{found.labels_changed} labels changed, on {found.images} images of {found.source}"
    return f"|Δscore| from {reference}: {spread}, {images}"


def examples() -> Path:
    """The folder of the example images: inside an installed wheel, or in a checkout."""
    package = Path(__file__).parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def _rounded(value: float) -> float:
    return float(f"{value:.2e}")
