"""What a training step of CO-SPY is given and what is kept of it, for upstream's code and for ours."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LABELS = (0, 1, 1, 0)
SEED = 8  # of what is interpolated
KEPT = 16  # numbers of a tensor


def step_views(side: int) -> NDArray[np.uint8]:
    """One view of an image a label, (B, S, S, 3): noise on a ramp."""
    rng = np.random.RandomState(side)
    ramp = np.add.outer(np.arange(side), np.arange(side))[..., None] * 128 / (2 * side)
    views = [ramp * rng.uniform(0.2, 1.5, 3) + rng.uniform(0, rng.randint(20, 120), (side, side, 3)) for _ in LABELS]
    return np.stack(views).clip(0, 255).astype(np.uint8)


def sample(tensor: Tensor) -> Tensor:
    """Evenly spaced numbers of a tensor, at most KEPT, (K,)"""
    flat = tensor.detach().flatten()
    return flat[torch.linspace(0, len(flat) - 1, min(KEPT, len(flat))).long()]
