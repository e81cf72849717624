"""The accuracy gate: does a detector of lower precision give the scores of fp32 on real images?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spai_export.onnx import ExportError
from spai_runtime.detector import Detector
from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Sources
from spai_runtime.images import Picture
from spai_runtime.results import Score
from spai_runtime.scoring.pipeline import score_all
from spai_runtime.views import ViewPolicy

LIMIT = 0.01  # of |Δscore|, for a graph that may be called verified
VIEWS = 512  # of all images together: ViT-B/16 takes minutes for them in fp32 on a CPU


@dataclass(frozen=True)
class Deviation:
    """How far scores and logits are from those of fp32.

    :param images, views: how many were compared
    :param source: where the images are from
    :param engine: what computed the scores that were judged
    :param largest, p99: |Δscore|; the largest, and the 99th percentile, interpolated
    :param logit: the largest |Δlogit|
    :param labels: how many images fell on the other side of the threshold
    """

    images: int
    views: int
    source: str
    engine: str
    largest: float
    p99: float
    logit: float
    labels: int

    @property
    def passed(self) -> bool:
        """Whether every score is within LIMIT; not where one is NaN."""
        return self.largest <= LIMIT

    def __str__(self) -> str:
        spread = f"at most {self.largest:.1e}, 99th percentile {self.p99:.1e}"
        return f"|Δscore| from fp32: {spread}, {self.labels} labels changed, on {self.images} images of {self.source}"

    def as_provenance(self) -> dict[str, Any]:
        """What detector.json says of it."""
        numbers = {name: float(f"{getattr(self, name):.2e}") for name in ("largest", "p99", "logit")}
        return {
            "against": "torch, fp32, cpu",
            "engine": self.engine,
            "images": self.images,
            "views": self.views,
            "source": self.source,
            "score_difference": {"largest": numbers["largest"], "p99": numbers["p99"]},
            "logit_difference": numbers["logit"],
            "labels_changed": self.labels,
            "limit": LIMIT,
            "passed": self.passed,
        }


class Gate:
    """Images and what the fp32 reference says of them, against which any number of detectors is held.

    :param reference: in fp32
    :param paths: of images; those that cannot be scored are left out
    :param source: where they are from, for people
    :raises ExportError: none could be scored
    """

    def __init__(self, reference: Detector, paths: Sequence[Path], source: str) -> None:
        scores = {path: score for path, score in _scores(reference, paths) if score is not None}
        if not scores:
            raise ExportError(f"no image of {source} can be scored; give --calibrate a folder of photographs")
        self.paths, self._expected, self._source = list(scores), list(scores.values()), source

    def hold(self, detector: Detector) -> Deviation:
        """:raises ExportError: the detector cannot score what the reference did"""
        found = [score for _, score in _scores(detector, self.paths)]
        expected = self._expected
        scores = [score for score in found if score is not None]
        if len(scores) < len(found):
            raise ExportError(f"{len(found) - len(scores)} of {len(found)} images get no score in lower precision")
        differences = np.array([abs(a.score - b.score) for a, b in zip(scores, expected, strict=True)])
        return Deviation(
            images=len(scores),
            views=sum(len(score.layout) for score in scores),
            source=self._source,
            engine=detector.encoder.label,
            largest=float(differences.max()),
            p99=float(np.percentile(differences, 99)),
            logit=max(abs(a.logit - b.logit) for a, b in zip(scores, expected, strict=True)),
            labels=sum(a.label != b.label for a, b in zip(scores, expected, strict=True)),
        )


def sample(folder: Path, policy: ViewPolicy, views: int = VIEWS) -> list[Path]:
    """Images of a folder that together have at most so many views, drawn with a fixed seed; at least one, if any.

    :returns: sorted; files that are no images are passed over
    """
    found = listed(folder)
    chosen: list[Path] = []
    for index in np.random.default_rng(0).permutation(len(found)):
        count = _views(found[index], policy)
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


def _views(path: Path, policy: ViewPolicy) -> int:
    """Of an image, by its header; 0 where it has none."""
    try:
        picture = Picture.open(path)
    except ImageError:
        return 0
    return len(policy.layout(picture.height, picture.width))


def _scores(detector: Detector, paths: Sequence[Path]) -> list[tuple[Path, Score | None]]:
    return [(result.item.path, result.score) for result in score_all(detector, paths)]
