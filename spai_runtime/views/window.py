"""Windows: an encoder of whole images run piece by piece, so that memory does not grow with the image."""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import msgspec

from spai_runtime.views.resize import LARGEST_SIDE


class Stretch(NamedTuple):
    """A window along one side of the image.

    :param start, stop: in pixels of the image
    :param kept: which of its patches are those of the whole image, and of no other window
    """

    start: int
    stop: int
    kept: slice


class Window(msgspec.Struct, frozen=True):
    """How an encoder gives features of an image's patches, and in which windows it may look at the image.

    What it gives of a patch is the sum of the network's cells in it, divided by the cells of a full patch. A patch at
    the right or the bottom may lie partly outside the image, and has fewer. Their sum over the image makes the mean
    over all cells. Since the network pads every layer with zeros, a window gives other features of the patches beside
    an edge that is not the image's; the next window, which overlaps it, gives the right ones.

    :param side: of a window in pixels, a multiple of `patch` and more than two halos
    :param halo: pixels around a patch that its features depend on, rounded up to a multiple of `patch`
    :param patch: side of a patch in pixels, a multiple of `stride`
    :param stride: pixels from one cell of the network's last map to the next
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
        """Rows and columns of the patches of so many pixels."""
        return math.ceil(height / self.patch), math.ceil(width / self.patch)

    def share(self, height: int, width: int) -> float:
        """What the sum of an image's patches is multiplied with to be the mean over its cells."""
        cells = math.ceil(height / self.stride) * math.ceil(width / self.stride)
        return (self.patch // self.stride) ** 2 / cells

    def count(self, height: int, width: int) -> int:
        """How many windows an image has."""
        step = self.side - 2 * self.halo
        down, across = (1 + math.ceil(max(0, length - self.side) / step) for length in (height, width))
        return down * across

    def pieces(self, height: int, width: int) -> Iterator[tuple[Stretch, Stretch]]:
        """The windows of an image, row-major: each where it lies down and across. Every patch is kept once."""
        return product(self._stretches(height), self._stretches(width))

    def _stretches(self, length: int) -> Iterator[Stretch]:
        start = stop = 0
        while stop < length:
            stop = min(start + self.side, length)
            first = self.halo if start else 0
            last = stop - start if stop == length else self.side - self.halo
            yield Stretch(start, stop, slice(first // self.patch, math.ceil(last / self.patch)))
            start += self.side - 2 * self.halo
