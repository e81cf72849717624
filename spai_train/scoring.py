"""Scores of samples by a model in torch, over the very views that the runtime cuts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from spai_runtime.images import Picture
from spai_runtime.views import ViewPolicy
from spai_train.data import Image
from spai_train.data.simulate import Sample
from spai_train.models.spai import SPAI, SPAIConfig


def views_of(image: Image, config: SPAIConfig) -> NDArray[np.uint8]:
    """(H, W, 3) → (V, S, S, 3): the tiles, or five crops where there are fewer than `minimum_tiles`."""
    policy = ViewPolicy(config.tile_size, config.tile_stride, config.minimum_tiles)
    return policy.layout(*image.shape[:2]).stack(Picture.from_array(image))


def random_view(image: Image, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One view from anywhere in an image that is at least as large: (H, W, 3) → (1, size, size, 3)."""
    top, left = rng.integers(image.shape[0] - size + 1), rng.integers(image.shape[1] - size + 1)
    return image[None, top : top + size, left : left + size]


@torch.inference_mode()
def scores(model: SPAI, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Probability of being generated, image by image: (B,)"""
    if not samples:
        return np.empty(0)
    logits = [model(torch.from_numpy(views_of(sample.pixels(), model.config))[None])[0] for sample in samples]
    probabilities: NDArray[np.float64] = torch.cat(logits)[:, 0].double().sigmoid().numpy()
    return probabilities
