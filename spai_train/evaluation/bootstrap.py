"""The bootstrap: how much a number would change if other images of the same kind had been tested."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.uint16]  # how often each image is drawn

CONFIDENCE = 0.95
CELLS = 1 << 20  # weights that are worked on at once: what a cache holds


@dataclass(frozen=True)
class Interval:
    """A measured value and its bootstrap 95% interval.

    Where every image of the set is right, or every one is wrong, all resamples are alike and the interval has no width,
    though the true rate may well be 3/n away from that of the n images.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, value: float, resampled: ArrayLike) -> "Interval":
        """The percentile interval: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13."""
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(np.asarray(resampled), (tail, 1 - tail))
        return cls(value, float(low), float(high))


def draw(sizes: Sequence[int], resamples: int, seed: int) -> list[Counts]:
    """How often each image is drawn when images are drawn from their own stratum again, with replacement.

    :param sizes: n, the number of images of each stratum, at least 1
    :returns: (resamples, n) of each stratum; a row sums to n
    """
    rng = np.random.default_rng(seed)
    return [_draw(rng, size, resamples) for size in sizes]


def blocks(images: int, resamples: int) -> Iterator[slice]:
    """Slices of the resamples, each small enough that this many images get no more than CELLS weights."""
    step = max(1, CELLS // max(1, images))
    return (slice(start, min(start + step, resamples)) for start in range(0, resamples, step))


def _draw(rng: np.random.Generator, size: int, resamples: int) -> Counts:
    shares = np.full(size, 1 / size)
    drawn = np.empty((resamples, size), np.uint16)
    for block in blocks(size, resamples):
        drawn[block] = rng.multinomial(size, shares, block.stop - block.start)
    return drawn
