"""The images of the accuracy check: a sample of a folder, which fp32 on a CPU can score in minutes."""

import math
from pathlib import Path

import numpy as np

from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Sources
from spai_runtime.images import Picture
from spai_runtime.views import Layout, ViewPolicy

VIEWS = 512  # of all images together: ViT-B/16 takes minutes for them in fp32 on a CPU
VIEW_PIXELS = 224**2  # of such a view; a larger one counts as several


def sample(folder: Path, policy: ViewPolicy, views: int = VIEWS) -> list[Path]:
    """Draws images of a folder, with a fixed seed, that have at most so many views together; at least one, if any.

    :returns: the images, sorted; files that are no images are passed over
    """
    found = listed(folder)
    chosen: list[Path] = []
    for index in np.random.default_rng(0).permutation(len(found)):
        count = _cost(found[index], policy)
        if count and (count <= views or not chosen):
            chosen.append(found[index])
            views -= count
    return sorted(chosen)


def listed(folder: Path) -> list[Path]:
    """The files of a folder that are images by their names. :raises SourceError: there is no such folder"""
    return [item.path for item in Sources([str(folder)])]


def _cost(path: Path, policy: ViewPolicy) -> int:
    """The cost of an image in views of VIEW_PIXELS, by its header; 0 where it has none or is refused."""
    try:
        picture = Picture.open(path)
        layout = policy.layout(picture.height, picture.width)
    except ImageError:
        return 0
    return _views(layout)


def _views(layout: Layout) -> int:
    return len(layout) * max(1, math.prod(layout.shape) // VIEW_PIXELS)
