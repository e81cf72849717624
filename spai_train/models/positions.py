"""Position embeddings for another number of tokens, as DINOv2 itself resamples them.

Axes: G tokens along a side of the grid, C width; positions are (1, 1 + G·G, C), CLS first.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from spai_train.tensors import CheckpointError


def resample_positions(positions: Tensor, side: int) -> Tensor:
    """Resamples positions bicubically, with a scale 0.1 tokens too large; the same number of tokens changes nothing.

    :param positions: (1, 1 + G·G, C)
    :param side: tokens along a side
    :returns: (1, 1 + side·side, C) fp32
    :raises CheckpointError: they are no square beside CLS
    """
    grid = grid_of(positions)
    if grid == side:
        return positions.float()
    tokens = positions[:, 1:].float().transpose(1, 2).reshape(1, -1, grid, grid)  # (1, C, G, G)
    tokens = F.interpolate(tokens, scale_factor=(side + 0.1) / grid, mode="bicubic")
    return torch.cat((positions[:, :1].float(), tokens.flatten(2).transpose(1, 2)), dim=1)


def spread_positions(positions: Tensor, grid: int) -> Tensor:
    """Positions of a larger grid from which `resample_positions` makes these, up to rounding; the smallest such ones.

    :param positions: (1, 1 + side·side, C)
    :param grid: G ≥ side
    :returns: (1, 1 + G·G, C) fp32
    """
    side = grid_of(positions)
    rows = torch.eye(grid).repeat_interleave(grid, dim=0)  # (G·G, G): channel i is 1 in row i of the grid
    resampled = resample_positions(torch.cat((rows[:1], rows))[None], side)
    along = resampled[0, 1::side].double().pinverse()  # (G, side)
    tokens = positions[0, 1:].double().reshape(side, side, -1)  # (side, side, C)
    spread = torch.einsum("ai,bj,ijc->abc", along, along, tokens).flatten(0, 1)
    return torch.cat((positions[:, :1].float(), spread[None].float()), dim=1)


def grid_of(positions: Tensor) -> int:
    """:returns: G
    :raises CheckpointError: they are no square beside CLS
    """
    shape = positions.shape
    grid = math.isqrt(max(0, shape[1] - 1)) if len(shape) == 3 else 0
    if not grid or shape[:2] != (1, 1 + grid * grid) or not positions.is_floating_point():
        raise CheckpointError(f"the checkpoint's positions are no square of numbers beside CLS: {tuple(shape)}")
    return grid
