"""Resizing: the size of an image before its views are cropped from it."""

from typing import Literal

import msgspec

from spai_runtime.images import Filter

LARGEST_SIDE = 8192  # of a view or after a resize, in pixels: a square of that takes 201 MB


class Resize(msgspec.Struct, frozen=True):
    """What torchvision's `Resize` does to PIL images: `Picture.resized` to `size`.

    :param side: the wanted length in pixels
    :param rule: which side gets that length: the `shorter` one, and the other one follows; or both, to a `square`
    :param filter: the filter of Pillow's resampling
    """

    side: int
    rule: Literal["shorter", "square"] = "shorter"
    filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.side <= LARGEST_SIDE:
            raise ValueError(f"a resize to a side of {self.side}: it must be at least 1 and at most {LARGEST_SIDE}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width after it (torchvision's `_compute_resized_output_size`, which cuts off fractions)."""
        if self.rule == "square":
            return self.side, self.side
        longer = int(self.side * max(height, width) / min(height, width))
        return (longer, self.side) if height > width else (self.side, longer)
