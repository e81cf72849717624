"""Random numbers as functions of where they are used, so that a run resumes at any step with no state but the step."""

from enum import IntEnum

import numpy as np


class Use(IntEnum):
    """What a seed is for. A new use goes to the end, so that the others keep their numbers."""

    ORDER = 0  # of the images of an epoch
    AUGMENT = 1  # one view of one image in one epoch
    SUBSTITUTE = 2  # the images that stand in for one that cannot be read
    STEP = 3  # dropout, drop path and masks of one step on one process
    INITIAL = 4  # weights


def seed_of(seed: int, use: Use, *place: int) -> int:
    """A seed of 63 bits for one place: epoch, image, step, …

    :param seed: the recipe's seed
    :param place: non-negative numbers
    """
    return int(np.random.SeedSequence((seed, int(use), *place)).generate_state(1, np.uint64)[0] >> np.uint64(1))
