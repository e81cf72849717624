"""How far scores are from those of fp32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spai_runtime.manifest import Accuracy, Spread
from spai_runtime.results import Score

LIMIT = 0.01  # of |Δscore|, for a graph or plan that may be called verified


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
