"""Heat maps: how much a head looked at each tile, as an image with one pixel for each tile, shown over the picture."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from spai_runtime.results import Score

COLOUR = 214, 0, 110  # RGB: a magenta, which photographs seldom have and people who confuse red and green can see
DENSEST = 200  # of 255: the picture shows through a tile however much it was looked at


@dataclass(frozen=True)
class Heat:
    """Attention over the tiles of an image.

    :param png: RGBA, one pixel for each tile. Its density is r / (1 + r) of the densest colour, where r is the tile's
        share of the attention over the mean share: one half for a tile with the mean share, and always below 1
    :param left, top, width, height: the area that the tiles cover, in pixels of the image
    """

    png: bytes
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, score: Score | None, width: int, height: int) -> "Heat | None":
        """The heat map of a score.

        :param width, height: those of the image in pixels
        :returns: None if there is no score, no attention, or no grid of tiles
        """
        if score is None or (grid := score.attention_grid) is None:
            return None
        layout = score.layout
        pixels = np.empty((*grid.shape, 4), np.uint8)
        pixels[..., :3] = COLOUR
        relative = np.nan_to_num(grid).clip(0, 1) * grid.size
        pixels[..., 3] = np.rint(DENSEST * relative / (1 + relative))
        file = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(file, "PNG")
        down, across = height / layout.height, width / layout.width  # where the image was resized before it was cut
        ends = *layout.origins.min(0).tolist(), *(layout.origins.max(0) + layout.shape).tolist()
        top, left, bottom, right = (scale * end for scale, end in zip((down, across) * 2, ends, strict=True))
        return cls(file.getvalue(), left, top, right - left, bottom - top)
