"""Tallies: how many images of either class have each score, in many resamples at once.

A resample is a weight for each image, so scores are sorted once, and S resamples of n images cost O(n log n + S n).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spai_train.evaluation.bootstrap import Floats

Weights = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Tally:
    """How many images have each score.

    :param levels: (U,) the distinct scores, rising
    :param real, generated: (S, U) real and generated images of each level
    """

    levels: Floats
    real: Floats
    generated: Floats

    @cached_property
    def reals(self) -> Floats:
        """The number of real images, (S,)."""
        return _sums(self.real)

    @cached_property
    def generateds(self) -> Floats:
        """The number of generated images, (S,)."""
        return _sums(self.generated)

    @property
    def images(self) -> Floats:
        """The number of images of both classes, (S,)."""
        return self.reals + self.generateds

    @cached_property
    def false_positives(self) -> Floats:
        """The share of the real images at or above each level, (S, U + 1), from 1 down to 0 above the last."""
        return at_or_above(self.real) / self.reals[:, None]

    @cached_property
    def true_positives(self) -> Floats:
        """The share of the generated images at or above each level, (S, U + 1)."""
        return at_or_above(self.generated) / self.generateds[:, None]


class Ranking:
    """The scores of two classes in one order: each weighting of the images gives a tally without sorting again.

    :param real: (R,) scores of real images
    :param generated: (G,) scores of generated images
    """

    def __init__(self, real: ArrayLike, generated: ArrayLike) -> None:
        real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
        self.levels, places = np.unique(np.concatenate((real, generated)), return_inverse=True)
        self._real, self._generated = _Places(places[: real.size]), _Places(places[real.size :])

    def tally(self, real: Weights | None = None, generated: Weights | None = None) -> Tally:
        """:param real, generated: weights of the images, (S, R) and (S, G); None counts each once, S = 1"""
        width = self.levels.size
        return Tally(self.levels, self._real.sums(real, width), self._generated.sums(generated, width))


class _Places:
    """The level that each image has. :param places: (n,)"""

    def __init__(self, places: NDArray[np.intp]) -> None:
        self._order = np.argsort(places, kind="stable")
        self._levels, self._starts = np.unique(places[self._order], return_index=True)

    def sums(self, weights: Weights | None, width: int) -> Floats:
        """Weights (S, n) → their sum at each level, (S, width)."""
        weights = np.ones((1, self._order.size)) if weights is None else weights
        sums = np.zeros((len(weights), width))
        sums[:, self._levels] = np.add.reduceat(weights[:, self._order], self._starts, axis=1, dtype=np.float64)
        return sums


def _sums(counts: Floats) -> Floats:
    sums: Floats = counts.sum(axis=1)
    return sums


def at_or_above(counts: Floats) -> Floats:
    """(S, U) → (S, U + 1): sums from each level up, and 0 above the last."""
    sums = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts[:, ::-1], axis=1, out=sums[:, -2::-1])
    return sums
