"""The accuracy check: does a detector give the scores of its fp32 reference on real images?"""

from collections.abc import Sequence
from pathlib import Path

from spai_runtime.accuracy import accuracy
from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_runtime.manifest import Accuracy
from spai_runtime.results import Score
from spai_runtime.scoring.pipeline import score_all


class AccuracyError(UserError):
    """Scores cannot be compared; the message says why, in one sentence."""


class AccuracyCheck:
    """Images with the scores that the fp32 reference gives them; any number of detectors can be compared with these.

    :param reference: the detector in fp32
    :param paths: the images; those that cannot be scored are left out
    :param source: where the images come from, in words for people
    :param against: what the reference is, in words for people
    :raises AccuracyError: no image could be scored
    """

    def __init__(self, reference: Detector, paths: Sequence[Path], source: str, against: str) -> None:
        scores = {path: score for path, score in _scores(reference, paths) if score is not None}
        if not scores:
            raise AccuracyError(f"no image of {source} can be scored: give a folder of photographs")
        self.paths, self._expected, self._source, self._against = list(scores), list(scores.values()), source, against

    def compare(self, detector: Detector) -> Accuracy:
        """Compare a detector with the reference.

        :raises AccuracyError: the detector cannot score an image that the reference scored
        """
        found = [score for _, score in _scores(detector, self.paths)]
        scores = [score for score in found if score is not None]
        if len(scores) < len(found):
            raise AccuracyError(f"{len(found) - len(scores)} of {len(found)} images get no score in lower precision")
        return accuracy(scores, self._expected, detector.encoder.label, self._source, self._against)


def _scores(detector: Detector, paths: Sequence[Path]) -> list[tuple[Path, Score | None]]:
    return [(result.item.path, result.score) for result in score_all(detector, paths)]
