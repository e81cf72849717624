"""Windows: an encoder of whole images runs piece by piece, so that its memory does not grow with the image."""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import msgspec

from spai_runtime.views.resize import LARGEST_SIDE


class Stretch(NamedTuple):
    """A window along one side of the image.

    :param start, stop: in pixels of the image
    :param kept: the patches whose features are taken from this window, and from no other window
    """

    start: int
    stop: int
    kept: slice


class Window(msgspec.Struct, frozen=True):
    """How an encoder gives features of an image's patches, and in which windows it may look at the image.

    The features of a patch are the sum of the network's cells in it, divided by the number of cells in a full patch. A
    patch at the right or the bottom may lie partly outside the image, and has fewer cells. The mean over all cells
    follows from the sum over all patches. Because the network pads every layer with zeros, a window gives other
    features for patches at an edge that is not the image's; the next window overlaps it and gives the right ones.

    :param side: side of a window in pixels, a multiple of `patch` and more than two halos
    :param halo: number of pixels around a patch that its features depend on, rounded up to a multiple of `patch`
    :param patch: side of a patch in pixels, a multiple of `stride`
    :param stride: the distance in pixels between two cells of the network's last map
    """

    side: int
    halo: int
    patch: int
    stride: int

    def __post_init__(self) -> None:
        if not (1 <= self.stride <= self.patch and self.halo >= 0 and 2 * self.halo < self.side <= LARGEST_SIDE):
            raise ValueError(
                f"windows of side {self.side} with a halo of {self.halo}, patches of {self.patch} and a stride of "
                f"{self.stride}: all must be positive, and two halos smaller than a window of at most {LARGEST_SIDE}"
            )
        if self.side % self.patch or self.halo % self.patch or self.patch % self.stride:
            raise ValueError(
                f"windows of side {self.side} with a halo of {self.halo} are no whole patches of {self.patch}, "
                f"or these no whole strides of {self.stride}"
            )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The rows and columns of patches in an image of this size."""
        return math.ceil(height / self.patch), math.ceil(width / self.patch)

    def share(self, height: int, width: int) -> float:
        """The factor that turns the sum over an image's patches into the mean over its cells."""
        cells = math.ceil(height / self.stride) * math.ceil(width / self.stride)
        return (self.patch // self.stride) ** 2 / cells

    def count(self, height: int, width: int) -> int:
        """The number of windows of an image."""
        step = self.side - 2 * self.halo
        down, across = (1 + math.ceil(max(0, length - self.side) / step) for length in (height, width))
        return down * across

    def pieces(self, height: int, width: int) -> Iterator[tuple[Stretch, Stretch]]:
        """The windows of an image, row-major: each is a stretch down and a stretch across. Every patch is kept once."""
        return product(self._stretches(height), self._stretches(width))

    def _stretches(self, length: int) -> Iterator[Stretch]:
        start = stop = 0
        while stop < length:
            stop = min(start + self.side, length)
            first = self.halo if start else 0
            last = stop - start if stop == length else self.side - self.halo
            yield Stretch(start, stop, slice(first // self.patch, math.ceil(last / self.patch)))
            start += self.side - 2 * self.halo
