"""View policies: which views of an image a detector looks at. A policy is data, and detector.json holds it."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from spai_runtime.views.layout import Layout


class Tiles(msgspec.Struct, frozen=True, tag_field="policy", tag="tiles"):
    """SPAI's views (upstream `patchify_image`, `five_crop`): every tile, or five crops of an image with few of them.

    :param size: side S of a view in pixels
    :param stride: between tiles, in pixels
    :param minimum: an image with fewer tiles is looked at in five crops (4 in the published configuration)
    """

    size: int = 224
    stride: int = 224
    minimum: int = 4

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


ViewPolicy = Tiles  # and others, each with a tag of its own


def _five_crop(bottom: int, right: int) -> NDArray[np.int64]:
    """torchvision's `five_crop`: the centre's offset is rounded, halves to even."""
    return np.array([(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))])
