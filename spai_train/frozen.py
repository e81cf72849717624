"""Training on a frozen backbone: its block tokens are computed once and kept, only what follows them learns.

Axes: B images, V views of an image, N = B·V views, K blocks, L tokens, C width of the backbone, D features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.data import Image
from spai_train.models.spai import SPAI, SpectralEncoder

Tokens = NDArray[np.float16]


@dataclass(frozen=True)
class Schedule:
    """One training of projectors, context and head.

    :param epochs: passes over the cached images
    :param batch_size: images a step
    :param learning_rate: the peak, reached after the share `warmup` of all steps; a cosine leads it to 0
    :param smoothing: share of a label that goes to the other class
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    smoothing: float = 0.0


def cache_tokens(
    encoder: SpectralEncoder, images: Sequence[Image], path: Path, kept: int, seed: int, batch_size: int = 16
) -> Tokens:
    """Block tokens of all views, in a file that is mapped into memory.

    Everything after the backbone is a mean or a deviation over the tokens, so a random part of them will do.

    :param images: views of each image, (V, S, S, 3) uint8, V the same for all
    :param kept: L, how many tokens of a view are kept, the same ones of its three branches
    :returns: (B, V, K, 3, L, C) float16
    """
    rng = np.random.default_rng(seed)
    views = len(images[0])
    cache: Tokens | None = None
    for start in range(0, len(images), batch_size):
        stacked = torch.from_numpy(np.concatenate(images[start : start + batch_size]))
        tokens = _tokens(encoder, stacked)
        index = np.sort(rng.permutation(tokens.shape[3])[:kept])
        tokens = tokens[:, :, :, torch.from_numpy(index)].half()
        if cache is None:
            cache = np.lib.format.open_memmap(path, "w+", np.float16, (len(images), views, *tokens.shape[1:]))
        cache[start : start + batch_size] = tokens.reshape(-1, *cache.shape[1:]).numpy()
    assert cache is not None
    return cache


def train_head(model: SPAI, cache: Tokens, labels: NDArray[np.int64], schedule: Schedule, seed: int) -> list[float]:
    """Trains all but the backbone, in place; the model is in eval mode afterwards.

    :param cache: (B, V, K, 3, L, C), of `cache_tokens`
    :param labels: (B,), 1 for generated
    :returns: mean loss of each epoch
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model.eval().head.train()  # dropout on every token costs as much as all else, and the head has its own
    learning = nn.ModuleList((model.encoder.projectors, model.encoder.context, model.head))
    optimizer = torch.optim.AdamW(learning.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    steps = schedule.epochs * math.ceil(len(cache) / schedule.batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps, schedule.warmup))
    losses = []
    for _ in range(schedule.epochs):
        total = 0.0
        for index in _batches(rng, len(cache), schedule.batch_size):
            loss = _loss(model, torch.from_numpy(cache[index]), torch.from_numpy(labels[index]), schedule.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
            optimizer.step()
            rate.step()
            total += loss.item() * len(index)
        losses.append(total / len(cache))
    model.eval()
    return losses


@torch.inference_mode()
def _tokens(encoder: SpectralEncoder, views: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 → (N, K, 3, L, C)"""
    blocks = torch.stack(encoder.block_tokens(views), dim=1)  # (3·N, K, L, C)
    return blocks.reshape(3, len(views), *blocks.shape[1:]).permute(1, 2, 0, 3, 4)


def _loss(model: SPAI, tokens: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Binary cross-entropy of a batch. tokens (B, V, K, 3, L, C), labels (B,)"""
    blocks = tokens.flatten(0, 1).float().permute(1, 2, 0, 3, 4).flatten(1, 2)  # (K, 3·N, L, C)
    features = model.encoder.describe(list(blocks))  # (N, D)
    logit, _ = model.head(features.reshape(*tokens.shape[:2], -1))
    target = labels.float() * (1 - 2 * smoothing) + smoothing
    return F.binary_cross_entropy_with_logits(logit[:, 0], target)


def _batches(rng: np.random.Generator, count: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    order = rng.permutation(count)
    for start in range(0, count, batch_size):
        yield np.sort(order[start : start + batch_size])  # in file order: the cache may not fit into memory


def _rate(progress: float, warmup: float) -> float:
    """Share of the peak learning rate at a share of all steps."""
    if progress < warmup:
        return progress / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))
