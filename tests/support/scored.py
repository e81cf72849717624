"""Tables of scored images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spai_train.data.perturb import NONE
from spai_train.data.table import Row
from spai_train.evaluation.scored import ScoredTable

Array = NDArray[np.float64]


def table_of(sources: Sequence[tuple[str, int, Sequence[float]]]) -> ScoredTable:
    """Images of (source, label, scores); a score of NaN is an image that could not be scored."""
    rows = [
        Row(f"{source}/{index}.png", Path(f"{source}/{index}.png"), label, "test", source)
        for source, label, scores in sources
        for index in range(len(scores))
    ]
    scores = np.concatenate([np.asarray(part, np.float64) for _, _, part in sources])
    errors = tuple("broken" if np.isnan(score) else "" for score in scores)
    return ScoredTable(tuple(rows), scores, scores, scores, errors, NONE)


RNG = np.random.default_rng(0)
SCORES: dict[tuple[str, int], Array] = {
    ("coco", 0): RNG.beta(1, 3, 30).round(2),
    ("raise", 0): RNG.beta(1, 2, 20).round(2),
    ("own", 0): RNG.beta(1, 4, 25).round(2),
    ("glide", 1): RNG.beta(3, 1, 22).round(2),
    ("flux", 1): RNG.beta(2, 1, 28).round(2),
    ("own", 1): RNG.beta(4, 1, 24).round(2),
}
TABLE = table_of([(source, label, scores.tolist()) for (source, label), scores in SCORES.items()])
