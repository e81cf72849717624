"""How many images a step has where nobody has chosen."""

from dataclasses import replace

import pytest

from spai_train.fit import FitRecipe
from spai_train.training.batch import following


@pytest.mark.parametrize(
    ("images", "accumulate", "processes", "expected"),
    [
        (576, 1, 1, 72),
        (10_000, 1, 1, 72),
        (575, 1, 1, 71),
        (642, 1, 5, 70),
        (100, 2, 2, 12),
        (30, 2, 2, 4),
        (3, 1, 1, 1),
    ],
)
def test_an_epoch_has_eight_steps_that_can_be_shared(
    images: int, accumulate: int, processes: int, expected: int
) -> None:
    recipe = replace(FitRecipe(), accumulate=accumulate)
    followed, notes = following(recipe, images, processes)
    assert followed == replace(recipe, batch_size=expected)
    assert len(notes) == (expected != 72)
