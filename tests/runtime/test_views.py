"""The tiles that DESIGN describes, against numpy.pad, torchvision's five_crop and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms.functional import five_crop

from spai_runtime.images import Picture
from spai_runtime.views import Layout, Tiles, reflect
from tests.support.images import pixels

BOUNDARIES = (1, 2, 3, 111, 112, 113, 223, 224, 225, 447, 448, 449, 671, 672, 673, 895, 896, 897, 1200)
SIDES = st.integers(1, 1200) | st.sampled_from(BOUNDARIES)


def padded(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """numpy's reflection, one side at a time; a side of one pixel, which numpy cannot reflect, is repeated."""
    for axis in (0, 1):
        short = max(0, size - image.shape[axis])
        margins = [(0, 0)] * 3
        margins[axis] = (short // 2, short - short // 2)
        image = np.pad(image, margins, mode="edge" if image.shape[axis] == 1 else "reflect")
    return image


def tile_starts(side: int, size: int, stride: int) -> list[int]:
    return [start for start in range(max(side, size)) if start % stride == 0 and start + size <= max(side, size)]


def brute_force(image: NDArray[np.uint8], size: int, stride: int, minimum: int) -> NDArray[np.uint8]:
    """(V, S, S, 3): all views of an image, cut from the padded image."""
    whole = padded(image, size)
    views = [
        whole[top : top + size, left : left + size]
        for top in tile_starts(image.shape[0], size, stride)
        for left in tile_starts(image.shape[1], size, stride)
    ]
    if len(views) < minimum:
        crops = five_crop(torch.from_numpy(whole).permute(2, 0, 1), [size, size])
        views = [crop.permute(1, 2, 0).numpy() for crop in crops]
    return np.stack(views)


@given(height=SIDES, width=SIDES)
@example(height=1, width=1)
@example(height=2, width=1)
@example(height=671, width=225)
@example(height=449, width=447)
@settings(max_examples=80, deadline=None)
def test_views_are_those_of_the_padded_image(height: int, width: int) -> None:
    image = pixels(height, width)
    layout = Tiles().layout(height, width)
    np.testing.assert_array_equal(layout.stack(Picture.from_array(image)), brute_force(image, 224, 224, 4))


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.sampled_from([1, 7, 32]),
    stride=st.sampled_from([5, 16, 32, 50]),
    minimum=st.sampled_from([0, 1, 4, 9]),
)
@settings(max_examples=150, deadline=None)
def test_other_policies(height: int, width: int, size: int, stride: int, minimum: int) -> None:
    image = pixels(height, width)
    layout = Tiles(size, stride, minimum).layout(height, width)
    np.testing.assert_array_equal(layout.stack(Picture.from_array(image)), brute_force(image, size, stride, minimum))


@pytest.mark.parametrize("other", BOUNDARIES)
def test_geometry_of_every_side(other: int) -> None:
    """All of 1 … 1200 against each boundary, both ways round: origins alone, in pixels of the padded image."""
    policy = Tiles()
    for side in range(1, 1201):
        for height, width in ((side, other), (other, side)):
            check_geometry(policy.layout(height, width), height, width)


def check_geometry(layout: Layout, height: int, width: int) -> None:
    rows, columns = (max(1, side // 224) for side in (height, width))
    origins = [(top + max(0, 224 - height) // 2, left + max(0, 224 - width) // 2) for top, left in layout.origins]
    if rows * columns >= 4:
        assert layout.grid == (rows, columns)
        assert origins == [(224 * row, 224 * column) for row in range(rows) for column in range(columns)]
    else:
        bottom, right = max(height, 224) - 224, max(width, 224) - 224
        middle = (int(round(bottom / 2.0)), int(round(right / 2.0)))  # noqa: RUF046  as torchvision writes it
        assert layout.grid is None
        assert origins == [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]


@pytest.mark.parametrize(
    ("height", "width", "views"),
    [(224, 224, 5), (448, 448, 4), (447, 448, 5), (224, 896, 4), (224, 895, 5), (700, 1000, 12), (50, 900, 4)],
)
def test_number_of_views(height: int, width: int, views: int) -> None:
    assert len(Tiles().layout(height, width)) == views


def test_centre_crop_rounds_halves_to_even() -> None:
    assert Tiles().layout(225, 227).origins[4].tolist() == [0, 2]  # 0.5 → 0, 1.5 → 2


@given(start=st.integers(-500, 500), length=st.integers(1, 400), side=st.integers(2, 300))
@settings(max_examples=150, deadline=None)
def test_reflect_is_numpys(start: int, length: int, side: int) -> None:
    expected = np.pad(np.arange(side), 1000, mode="reflect")[1000 + start :][:length]
    np.testing.assert_array_equal(reflect(start, length, side), expected)


def test_a_side_of_one_pixel_repeats() -> None:
    assert reflect(-3, 7, 1).tolist() == [0] * 7


def test_the_odd_pixel_of_padding_goes_right_and_down() -> None:
    assert Tiles(4, 4, 0).layout(3, 1).origins.tolist() == [[0, -1]]


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (1, 0), (-5, 5)])
def test_impossible_policies(size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Tiles(size, stride)
