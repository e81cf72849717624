"""A picture, and views of it by one step of the augmentation alone."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, PLAIN
from tests.support.images import pixels

SIZE = 48
IMAGE = pixels(SIZE, SIZE)
PICTURE = Picture.from_array(IMAGE)
PROBABILITIES = [field.name for field in fields(FINETUNE) if isinstance(getattr(FINETUNE, field.name), float)]
PROBABILITIES.remove("degrees")
ALL = replace(FINETUNE, **dict.fromkeys(PROBABILITIES, 1.0))


def alone(picture: Picture = PICTURE, seed: int = 0, **settings: Any) -> NDArray[np.uint8]:
    """A view of a picture of SIZE × SIZE by what the settings name, and nothing else."""
    return Augment(replace(PLAIN, **settings), SIZE)(picture, seed)


def grey(level: int) -> Picture:
    return Picture.from_array(np.full((SIZE, SIZE, 3), level, np.uint8))
