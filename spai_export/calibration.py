"""The views that the scales of 8 bits are found on: a sample of those of a folder of images."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spai_export.modelopt import QuantisationError
from spai_runtime.errors import ImageError
from spai_runtime.images import Picture
from spai_runtime.views import Layout, ViewPolicy

IMAGES = 500  # that NVIDIA wants for a ViT, at least


def calibration_views(paths: Sequence[Path], policy: ViewPolicy, count: int = 512, seed: int = 0) -> NDArray[np.uint8]:
    """A sample of the views of images, to calibrate on: one of each image, then a second of each, and so on.

    NVIDIA wants at least 500 views for a ViT. They should come from as many images, which should be like those that
    will be scored, since values that no calibration image reaches are clipped. `paths` and `seed` decide the choice.

    :param paths: the images; those that cannot be read are left out
    :returns: (count, H, W, 3), or fewer views where the images have fewer
    :raises QuantisationError: no image can be read, or the detector's views have no one size
    """
    if None in policy.shape:
        raise QuantisationError("8 bits need views of one size, and these are whole images: choose fp32 or fp16")
    random = np.random.default_rng(seed)
    views = [
        view
        for path, layout, indices in _sampled(paths, policy, count, random)
        for view in _crops(path, policy, layout, indices)
    ]
    if not views:
        raise QuantisationError(f"calibration needs images, and none of {len(paths)} can be read: name others")
    return np.stack(views)


def few_images(found: int, wanted: int, views: int) -> list[str]:
    """A sentence for the user where scales were found on too few images; none where there were enough.

    :param found: how many images were there to calibrate on
    :param views: how many of their views the scales were found on
    """
    if found >= wanted:
        return []
    return [
        f"scales were found on {views} views of {found} images, and {wanted} images are wanted: scores of other images "
        "may be further off than those of the check; give --images a larger folder of such as will be scored"
    ]


def _sampled(
    paths: Sequence[Path], policy: ViewPolicy, count: int, random: np.random.Generator
) -> Iterator[tuple[Path, Layout, list[int]]]:
    """Draws images and views of them: each image's path, its layout, and the indices of its chosen views."""
    layouts: dict[int, Layout] = {}
    for image in map(int, random.permutation(len(paths))):
        if len(layouts) == count:
            break
        with suppress(ImageError):
            picture = Picture.open(paths[image])
            layouts[image] = policy.layout(picture.height, picture.width)
    turns = []  # (turn, image, index): sorted, every image has its first turn before one has its second
    for image, layout in layouts.items():
        turns += [(turn, image, int(index)) for turn, index in enumerate(random.permutation(len(layout))[:count])]
    chosen = sorted(turns)[:count]
    for image, layout in layouts.items():
        yield paths[image], layout, [index for _, of, index in chosen if of == image]


def _crops(path: Path, policy: ViewPolicy, layout: Layout, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The views with these indices, (len(indices), H, W, 3); none where an image with a good header is not decoded."""
    views = np.empty((len(indices), *layout.shape, 3), np.uint8)
    try:
        picture = Picture.open(path).load()
        if policy.resize:
            picture = picture.resized(layout.height, layout.width, policy.resize.filter)
        for index, view in zip(indices, views, strict=True):
            layout.crop(picture, index, view)
    except ImageError:
        return views[:0]
    return views
