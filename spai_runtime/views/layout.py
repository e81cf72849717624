"""Layouts: where the views of a detector lie in an image, and how their pixels are cropped when a batch needs them.

Training and deployment share this module, so both see the same pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spai_runtime.images import BAND_BYTES
from spai_runtime.views.padding import INDICES, Indices, Padding
from spai_runtime.views.window import Window


class Source(Protocol):
    """Pixels that views are cropped from; a `Picture` is one."""

    def crop(self, top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        """Crop a box inside the image. :returns: its pixels, (bottom − top, right − left, 3) uint8 RGB"""


@dataclass(frozen=True, eq=False)
class Layout:
    """The views of one image.

    :param height, width: those of what views are cropped from, in pixels: the image after the policy's resize
    :param shape: height and width of a view, in pixels
    :param origins: (V, 2), top and left of each view in pixels of the image; they may lie outside it
    :param grid: rows and columns of the tiles; None for crops, which form no grid
    :param flips: (V,), or one for all: whether a view is mirrored, left to right, after it was cropped
    :param padding: what a view shows outside the image
    :param window: how an encoder may look at the only view piece by piece; None if it looks at all of it at once
    """

    height: int
    width: int
    shape: tuple[int, int]
    origins: NDArray[np.int64]
    grid: tuple[int, int] | None
    flips: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, np.bool_))
    padding: Padding = "reflect"
    window: Window | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "flips", np.broadcast_to(self.flips, len(self.origins)))

    def __len__(self) -> int:
        return len(self.origins)

    def crop(self, source: Source, index: int, out: NDArray[np.uint8]) -> None:
        """Write one view into `out`, (*shape, 3) uint8; this allocates no more than one view.

        :param source: pixels with the layout's height and width
        """
        (top, left), (height, width) = map(int, self.origins[index]), self.shape
        view = out[:, ::-1] if self.flips[index] else out
        if 0 <= top <= self.height - height and 0 <= left <= self.width - width:
            _copy(source, top, left, view)
        else:
            indices = INDICES[self.padding]
            _gather(source, indices(top, height, self.height), indices(left, width, self.width), view)

    def stack(self, source: Source) -> NDArray[np.uint8]:
        """All views at once, (V, *shape, 3)."""
        views = np.empty((len(self), *self.shape, 3), np.uint8)
        for index, view in enumerate(views):
            self.crop(source, index, view)
        return views


def _copy(source: Source, top: int, left: int, view: NDArray[np.uint8]) -> None:
    """Fill a view that lies inside, band by band, because it may be a whole image."""
    height, width, _ = view.shape
    rows = max(1, BAND_BYTES // (3 * width))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        view[start:stop] = source.crop(top + start, left, top + stop, left + width)


def _gather(source: Source, rows: Indices, columns: Indices, view: NDArray[np.uint8]) -> None:
    """Fill a view that shows the pixels of these rows and columns."""
    view[:] = 0
    for down in _runs(rows):
        for across in _runs(columns):
            (y, bottom), (x, right) = ((part.min(), part.max() + 1) for part in (rows[down], columns[across]))
            patch = source.crop(int(y), int(x), int(bottom), int(right))
            view[down, across] = patch[rows[down] - y].take(columns[across] - x, axis=1)


def _runs(indices: Indices) -> Iterator[slice]:
    """Give the stretches of a view that each show one run of neighbours of the image, no longer than the stretch.

    With reflection there is one run, and also if the view shows the whole side. A view that wraps may show both ends of
    the side, each in one stretch, since it passes the edge once.
    """
    shown = np.unique(indices[indices >= 0])
    for run in np.split(shown, np.flatnonzero(np.diff(shown) > 1) + 1):
        if len(run):
            places = np.flatnonzero((indices >= run[0]) & (indices <= run[-1]))
            yield slice(places[0], places[-1] + 1)
