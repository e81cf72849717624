"""Layouts: where in an image the views of a detector lie, and their pixels, cropped when a batch needs them.

Training and deployment share this module, so both see the same pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spai_runtime.images import Picture


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

    def crop(self, picture: Picture, index: int, out: NDArray[np.uint8]) -> None:
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
            self.crop(picture, index, view)
        return views


def reflect(start: int, length: int, side: int) -> NDArray[np.int64]:
    """Indices start … start + length − 1 folded into 0 … side − 1 without repeating the edge (numpy's `reflect`)."""
    if side == 1:
        return np.zeros(length, np.int64)
    period = 2 * (side - 1)
    folded = np.arange(start, start + length) % period
    return np.minimum(folded, period - folded)
