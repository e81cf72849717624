"""The demo detector's scores by each contender, beside those of ONNX Runtime in fp32: differences, and AUCs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from goals import Row
from numpy.typing import NDArray

from cpu.bench import Bench, Rows
from cpu.contender import REFERENCE, Contender
from cpu.exports import Exports
from cpu.images import Images, Labelled, demo_scenes, gathered
from cpu.settings import SCORES
from spai_runtime.scoring.pipeline import score_all
from spai_train.evaluation.metrics import auc

Scores = Mapping[Path, float]


def measure(bench: Bench, rows: Rows) -> None:
    """One after the other; the reference is scored first, whoever takes part."""
    images = gathered(bench.folder / "pieces", demo_scenes(bench.settings.scenes))
    reference = scores(REFERENCE, bench.exports, images.all)
    for row, contender in rows:
        with bench.results.part(row, SCORES) as figures:
            found = reference if contender == REFERENCE else scores(contender, bench.exports, images.all)
            figures.update(compared(found, reference, images))


def scores(contender: Contender, exports: Exports, paths: Sequence[Path]) -> Scores:
    """Of each image."""
    with contender.load(exports.trained(contender)) as detector:
        found = list(score_all(detector, paths))
    errors = [result.error for result in found if result.error]
    assert not errors, errors[0]
    return {path: result.score.score for path, result in zip(paths, found, strict=True) if result.score}


def compared(found: Scores, reference: Scores, images: Images) -> Row:
    """Largest |Δscore| of the images that are looked at, and of all; AUCs, and the largest that one moved by."""
    aucs = [{form: area(each, one) for form, one in images.labelled.items()} for each in (found, reference)]
    return {
        "images": len(images.looked_at),
        "score_difference": largest_difference(found, reference, images.looked_at),
        "labelled_images": len(images.all) - len(images.looked_at),
        "score_difference_of_all": largest_difference(found, reference, images.all),
        "auc": aucs[0],
        "auc_difference": max(abs(aucs[0][form] - aucs[1][form]) for form in images.labelled),
    }


def largest_difference(found: Scores, reference: Scores, paths: Sequence[Path]) -> float:
    """Of the two scores of an image."""
    return max(abs(found[path] - reference[path]) for path in paths)


def area(found: Scores, images: Labelled) -> float:
    """AUC of one format."""
    return auc(*(_of(found, paths) for paths in (images.real, images.generated)))


def _of(found: Scores, paths: Sequence[Path]) -> NDArray[np.float64]:
    return np.array([found[path] for path in paths])
