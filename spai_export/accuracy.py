"""The accuracy check: does a detector of lower precision give the scores of fp32 on real images?"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spai_export.onnx import ExportError
from spai_export.verify import AGAINST
from spai_runtime.detector import Detector
from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Sources
from spai_runtime.images import Picture
from spai_runtime.manifest import Accuracy, Spread
from spai_runtime.results import Score
from spai_runtime.scoring.pipeline import score_all
from spai_runtime.views import Layout, ViewPolicy

LIMIT = 0.01  # of |Δscore|, for a graph that may be called verified
VIEWS = 512  # of all images together: ViT-B/16 takes minutes for them in fp32 on a CPU
VIEW_PIXELS = 224**2  # of such a view; a larger one counts as several


class AccuracyCheck:
    """Images and what the fp32 reference says of them, with which any number of detectors is compared.

    :param reference: in fp32
    :param paths: of images; those that cannot be scored are left out
    :param source: where they are from, for people
    :raises ExportError: none could be scored
    """

    def __init__(self, reference: Detector, paths: Sequence[Path], source: str) -> None:
        scores = {path: score for path, score in _scores(reference, paths) if score is not None}
        if not scores:
            raise ExportError(f"no image of {source} can be scored; give --images a folder of photographs")
        self.paths, self._expected, self._source = list(scores), list(scores.values()), source

    def compare(self, detector: Detector) -> Accuracy:
        """:raises ExportError: the detector cannot score what the reference did"""
        found = [score for _, score in _scores(detector, self.paths)]
        scores = [score for score in found if score is not None]
        if len(scores) < len(found):
            raise ExportError(f"{len(found) - len(scores)} of {len(found)} images get no score in lower precision")
        return accuracy(scores, self._expected, detector.encoder.label, self._source)


def accuracy(scores: Sequence[Score], expected: Sequence[Score], engine: str, source: str) -> Accuracy:
    """How far scores are from those of the reference, in numbers of three digits.

    They pass where each is within LIMIT, and not where one is NaN.

    :param engine: what computed the scores
    :param source: where the images are from
    """
    pairs = list(zip(scores, expected, strict=True))
    differences = np.array([abs(found.score - wanted.score) for found, wanted in pairs])
    return Accuracy(
        against=AGAINST,
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


def sentence(found: Accuracy) -> str:
    """What the user is told of it."""
    spread = f"at most {found.score_difference.largest:.1e}, 99th percentile {found.score_difference.p99:.1e}"
    images = f"{found.labels_changed} labels changed, on {found.images} images of {found.source}"
    return f"|Δscore| from fp32: {spread}, {images}"


def sample(folder: Path, policy: ViewPolicy, views: int = VIEWS) -> list[Path]:
    """Images of a folder that together have at most so many views, drawn with a fixed seed; at least one, if any.

    :returns: sorted; files that are no images are passed over
    """
    found = listed(folder)
    chosen: list[Path] = []
    for index in np.random.default_rng(0).permutation(len(found)):
        count = _cost(found[index], policy)
        if count and (count <= views or not chosen):
            chosen.append(found[index])
            views -= count
    return sorted(chosen)


def listed(folder: Path) -> list[Path]:
    """What is an image in a folder by its name. :raises SourceError: there is no such folder"""
    return [item.path for item in Sources([str(folder)])]


def examples() -> Path:
    """The example images: inside an installed wheel, or in a checkout."""
    package = Path(__file__).parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def _cost(path: Path, policy: ViewPolicy) -> int:
    """Of an image in views of VIEW_PIXELS, by its header; 0 where it has none, or is refused."""
    try:
        picture = Picture.open(path)
        layout = policy.layout(picture.height, picture.width)
    except ImageError:
        return 0
    return _views(layout)


def _views(layout: Layout) -> int:
    return len(layout) * max(1, math.prod(layout.shape) // VIEW_PIXELS)


def _rounded(value: float) -> float:
    return float(f"{value:.2e}")


def _scores(detector: Detector, paths: Sequence[Path]) -> list[tuple[Path, Score | None]]:
    return [(result.item.path, result.score) for result in score_all(detector, paths)]
