"""Views: the squares of an image that a detector looks at, laid out from its size, cut when a batch needs them.

Training and deployment share this module, so both see the same pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spai_runtime.images import Picture


@dataclass(frozen=True)
class ViewPolicy:
    """SPAI's views (upstream `patchify_image`, `five_crop`): every tile, or five crops of an image with few of them.

    :param size: side S of a view in pixels
    :param stride: between tiles, in pixels
    :param minimum: an image with fewer tiles is looked at in five crops (4 in the published configuration)
    """

    size: int = 224
    stride: int = 224
    minimum: int = 4
    policy: Literal["tiles"] = "tiles"

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1:
            raise ValueError(f"views of side {self.size} and stride {self.stride}: both must be at least 1")

    def layout(self, height: int, width: int) -> "Layout":
        """Where the views of an image of this size lie.

        A side shorter than a view is padded by reflection, half before and half after, the odd pixel after.
        Tiles are in row-major order; what is left over at the right and the bottom is not looked at. Five crops are
        top-left, top-right, bottom-left, bottom-right, centre.
        """
        padding = np.array([max(0, self.size - height) // 2, max(0, self.size - width) // 2])
        room = max(height, self.size) - self.size, max(width, self.size) - self.size
        rows, columns = (np.arange(0, free + 1, self.stride) for free in room)
        grid: tuple[int, int] | None = (len(rows), len(columns))
        if len(rows) * len(columns) < self.minimum:
            grid, origins = None, _five_crop(*room)
        else:
            origins = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return Layout(height, width, self.size, origins - padding, grid)


@dataclass(frozen=True, eq=False)
class Layout:
    """The views of one image.

    :param height, width: of the image, in pixels
    :param origins: (V, 2), top and left of each view in pixels of the image; outside it, pixels are reflected
    :param grid: rows and columns of the tiles, or None for five crops
    """

    height: int
    width: int
    size: int
    origins: NDArray[np.int64]
    grid: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.origins)

    def cut(self, picture: Picture, index: int, out: NDArray[np.uint8]) -> None:
        """Writes one view into `out`, (S, S, 3) uint8; nothing the size of the image is allocated."""
        top, left = map(int, self.origins[index])
        if 0 <= top <= self.height - self.size and 0 <= left <= self.width - self.size:
            out[:] = picture.crop(top, left, top + self.size, left + self.size)
            return
        rows, columns = reflect(top, self.size, self.height), reflect(left, self.size, self.width)
        first_row, first_column = rows.min(), columns.min()
        patch = picture.crop(int(first_row), int(first_column), int(rows.max()) + 1, int(columns.max()) + 1)
        out[:] = patch[np.ix_(rows - first_row, columns - first_column)]

    def stack(self, picture: Picture) -> NDArray[np.uint8]:
        """All views at once, (V, S, S, 3)."""
        views = np.empty((len(self), self.size, self.size, 3), np.uint8)
        for index, view in enumerate(views):
            self.cut(picture, index, view)
        return views


def reflect(start: int, length: int, side: int) -> NDArray[np.int64]:
    """Indices start … start + length − 1 folded into 0 … side − 1 without repeating the edge (numpy's `reflect`)."""
    if side == 1:
        return np.zeros(length, np.int64)
    period = 2 * (side - 1)
    folded = np.arange(start, start + length) % period
    return np.minimum(folded, period - folded)


def _five_crop(bottom: int, right: int) -> NDArray[np.int64]:
    """torchvision's `five_crop`: the centre's offset is rounded, halves to even."""
    return np.array([(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))])
