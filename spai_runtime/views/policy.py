"""View policies: which views of an image a detector looks at. A policy is data, and detector.json holds it.

Each has

- `shape`: height and width of a view in pixels, None where it is the image's own,
- `resize`: what the image goes through first, or None,
- `window`: the pieces in which an encoder may look at a view, or None,
- `layout(height, width)`: where the views lie of an image that had this size before the resize. A side shorter than a
  view is padded, half before and half after, the odd pixel after.
"""

import math
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from spai_runtime.errors import ImageError
from spai_runtime.images import pixel_limit
from spai_runtime.views.layout import Layout
from spai_runtime.views.padding import Padding
from spai_runtime.views.resize import LARGEST_SIDE, Resize
from spai_runtime.views.window import Window

ViewShape = tuple[int | None, int | None]  # height and width in pixels; None is the image's own
Origins = NDArray[np.int64]

MOST_VIEWS = 1 << 16  # of one image; the published SPAI makes 3,566 of the largest image that is decoded
_AT_MOST = f" and at most {LARGEST_SIDE}"


class Tiles(msgspec.Struct, frozen=True, tag_field="policy", tag="tiles"):
    """The views of SPAI (upstream `patchify_image`, `five_crop`): all tiles, or five crops of an image with few tiles.

    :param size: the side S of a view in pixels
    :param stride: the distance between tiles in pixels
    :param minimum: an image with fewer tiles is looked at in five crops (4 in the published configuration)
    :param padding: how a side that is shorter than a view is padded
    """

    size: int = 224
    stride: int = 224
    minimum: int = 4
    padding: Padding = "reflect"
    resize: Resize | None = None
    window: ClassVar[Window | None] = None

    def __post_init__(self) -> None:
        if not (1 <= self.size <= LARGEST_SIDE and 1 <= self.stride <= LARGEST_SIDE):
            raise ValueError(f"views of side {self.size} and stride {self.stride}: both must be at least 1{_AT_MOST}")

    @property
    def shape(self) -> ViewShape:
        """The shape of a view: (S, S)."""
        return self.size, self.size

    def layout(self, height: int, width: int) -> Layout:
        """Say where the views of an image of this size lie.

        Tiles are in row-major order; pixels that are left over at the right and the bottom are not looked at. Five
        crops are top-left, top-right, bottom-left, bottom-right, centre.

        :raises ImageError: resized or padded, it would have too many pixels; or it has more than MOST_VIEWS tiles
        """
        plane = _plane(self, height, width)
        room, before = _margins(plane, self.size)
        if (count := math.prod(free // self.stride + 1 for free in room)) > MOST_VIEWS:
            raise ImageError(
                f"{width}×{height} pixels have {count} views, and at most {MOST_VIEWS} are looked at; crop it"
            )
        rows, columns = (np.arange(0, free + 1, self.stride) for free in room)
        grid: tuple[int, int] | None = (len(rows), len(columns))
        if len(rows) * len(columns) < self.minimum:
            grid, origins = None, _five_crop(*room)
        else:
            origins = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return Layout(*plane, (self.size, self.size), origins - before, grid, padding=self.padding)


class _Squares(msgspec.Struct, frozen=True):
    """Crops of one size.

    :param size: the side S of a view in pixels
    :param padding: how a side that is shorter than a view is padded; torchvision's is `zero`
    """

    size: int
    resize: Resize | None = None
    padding: Padding = "zero"
    window: ClassVar[Window | None] = None

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_SIDE:
            raise ValueError(f"views of side {self.size}: it must be at least 1{_AT_MOST}")

    @property
    def shape(self) -> ViewShape:
        """The shape of a view: (S, S)."""
        return self.size, self.size


class CentreCrop(_Squares, frozen=True, tag_field="policy", tag="centre_crop"):
    """One view from the middle: torchvision's `center_crop`."""

    def layout(self, height: int, width: int) -> Layout:
        """Say where the view lies. :raises ImageError: resized or padded, the image would have too many pixels"""
        plane = _plane(self, height, width)
        room, before = _margins(plane, self.size)
        return Layout(*plane, (self.size, self.size), _five_crop(*room)[4:] - before, None, padding=self.padding)


class TenCrop(_Squares, frozen=True, tag_field="policy", tag="ten_crop"):
    """torchvision's `ten_crop`: five crops of the image, padded where it is short, and five of that image mirrored."""

    def layout(self, height: int, width: int) -> Layout:
        """The views: top-left, top-right, bottom-left, bottom-right, centre; then the same of the mirrored image.

        :raises ImageError: resized or padded, it would have too many pixels
        """
        plane = _plane(self, height, width)
        room, before = _margins(plane, self.size)
        crops = _five_crop(*room)
        mirrored = crops * (1, -1) + (0, room[1])  # where they lie in the image that is not
        origins, flips = np.concatenate((crops, mirrored)) - before, np.repeat([False, True], 5)
        return Layout(*plane, (self.size, self.size), origins, None, flips, self.padding)


class WholeImage(msgspec.Struct, frozen=True, tag_field="policy", tag="whole"):
    """One view that is the whole image.

    :param window: how the encoder may look at it piece by piece; None if it looks at all of it at once
    """

    resize: Resize | None = None
    window: Window | None = None

    @property
    def shape(self) -> ViewShape:
        """The shape of a view, (H, W); None if it depends on the image."""
        return (self.resize.side,) * 2 if self.resize and self.resize.rule == "square" else (None, None)

    def layout(self, height: int, width: int) -> Layout:
        """Say where the view lies.

        :raises ImageError: resized, the image would have too many pixels; or it has more than MOST_VIEWS windows
        """
        plane = _plane(self, height, width)
        if self.window and (count := self.window.count(*plane)) > MOST_VIEWS:
            raise ImageError(
                f"{width}×{height} pixels have {count} windows, and at most {MOST_VIEWS} are looked at; crop it"
            )
        return Layout(*plane, plane, np.zeros((1, 2), np.int64), None, window=self.window)


ViewPolicy = Tiles | CentreCrop | TenCrop | WholeImage


def _plane(policy: ViewPolicy, height: int, width: int) -> tuple[int, int]:
    """The height and width of what views are cropped from: the image after the resize.

    :raises ImageError: padded to the side of a view, it would pass the limit for decompression bombs
    """
    plane = policy.resize.size(height, width) if policy.resize else (height, width)
    limit = pixel_limit()
    if math.prod(max(side, view or 1) for side, view in zip(plane, policy.shape, strict=True)) > limit:
        changed = "resized" if policy.resize else "padded"
        raise ImageError(f"{width}×{height} pixels would be {changed} past the limit of {limit} pixels; crop it")
    return plane


def _margins(plane: tuple[int, int], size: int) -> tuple[tuple[int, int], Origins]:
    """How far down and right a view may lie in the padded image, and where the image itself begins in it."""
    bottom, right = (max(0, side - size) for side in plane)
    return (bottom, right), np.array([max(0, size - side) // 2 for side in plane])


def _five_crop(bottom: int, right: int) -> Origins:
    """The origins of torchvision's `five_crop`: the centre's offset is rounded, and halves to even."""
    return np.array([(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))])
