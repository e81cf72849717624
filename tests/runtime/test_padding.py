"""What lies outside an image is numpy's padding, and no more of the image is taken than a view shows of it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.images import BAND_BYTES, Picture
from spai_runtime.views import CentreCrop, Layout, Padding, WholeImage, wrap, zero
from tests.support.images import pixels
from tests.support.padded import PADDINGS, pad

FAR = 1000

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


class Recording:
    """A picture that remembers what was cropped from it."""

    def __init__(self, image: Pixels) -> None:
        self._picture = Picture.from_array(image)
        self.boxes: list[Box] = []

    def crop(self, *box: int) -> Pixels:
        top, left, bottom, right = box
        assert 0 <= top < bottom <= self._picture.height
        assert 0 <= left < right <= self._picture.width
        self.boxes.append((top, left, bottom, right))
        return self._picture.crop(*box)

    @property
    def most(self) -> int:
        """Pixels of the largest crop."""
        return max((bottom - top) * (right - left) for top, left, bottom, right in self.boxes)


@given(start=st.integers(-500, 500), length=st.integers(1, 400), side=st.integers(1, 300))
@example(start=-3, length=7, side=1)
@settings(max_examples=150, deadline=None)
def test_wrap_is_numpys(start: int, length: int, side: int) -> None:
    expected = np.pad(np.arange(side), FAR, mode="wrap")[FAR + start :][:length]
    np.testing.assert_array_equal(wrap(start, length, side), expected)


@given(start=st.integers(-500, 500), length=st.integers(1, 400), side=st.integers(1, 300))
@example(start=-3, length=3, side=3)  # nothing of it
@settings(max_examples=150, deadline=None)
def test_zero_is_numpys(start: int, length: int, side: int) -> None:
    expected = np.pad(np.arange(side), FAR, constant_values=-1)[FAR + start :][:length]
    np.testing.assert_array_equal(zero(start, length, side), expected)


@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    origin=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    padding=st.sampled_from(PADDINGS),
    flipped=st.booleans(),
)
@example(sides=(40, 40), shape=(9, 9), origin=(-4, 36), padding="wrap", flipped=False)  # shows all four corners
@example(sides=(5, 5), shape=(4, 4), origin=(-4, 0), padding="zero", flipped=True)  # shows nothing
@example(sides=(9, 9), shape=(4, 4), origin=(-1, 3), padding="reflect", flipped=False)  # a pixel out, on each side
@example(sides=(9, 9), shape=(4, 4), origin=(3, -1), padding="reflect", flipped=False)
@example(sides=(9, 9), shape=(4, 4), origin=(6, 3), padding="reflect", flipped=False)
@example(sides=(9, 9), shape=(4, 4), origin=(3, 6), padding="reflect", flipped=False)
@settings(max_examples=200, deadline=None)
def test_a_view_anywhere(
    sides: tuple[int, int], shape: tuple[int, int], origin: tuple[int, int], padding: Padding, flipped: bool
) -> None:
    image, (top, left), (height, width) = pixels(*sides), origin, shape
    layout = Layout(*sides, shape, np.array([origin]), None, np.array([flipped]), padding)
    source, view = Recording(image), np.full((*shape, 3), 255, np.uint8)
    layout.crop(source, 0, view)
    expected = pad(image, [(FAR, FAR)] * 2, padding)[FAR + top :, FAR + left :][:height, :width]
    np.testing.assert_array_equal(view, expected[:, ::-1] if flipped else expected)
    assert not source.boxes or source.most <= height * width


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("height", "width"), [(10, 3000), (3000, 10), (1, 3000)])
def test_of_a_sliver_a_view_is_taken(padding: Padding, height: int, width: int) -> None:
    source = Recording(pixels(height, width))
    CentreCrop(32, padding=padding).layout(height, width).stack(source)
    assert source.most <= 32 * min(height, width, 32)


def test_a_whole_image_comes_in_bands() -> None:
    image = pixels(900, 800)
    source = Recording(image)
    np.testing.assert_array_equal(WholeImage().layout(900, 800).stack(source), image[None])
    assert len(source.boxes) == 3
    assert 3 * source.most <= BAND_BYTES


def test_a_row_that_is_longer_than_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spai_runtime.views.layout.BAND_BYTES", 100)
    image = pixels(4, 50)
    np.testing.assert_array_equal(WholeImage().layout(4, 50).stack(Picture.from_array(image)), image[None])


def test_flips_are_of_each_view_or_of_all() -> None:
    image, origins = pixels(4, 9), np.array([(0, 0), (0, 5)])
    first, second = image[:, :4], image[:, 5:]
    for flips, expected in (
        (np.array([True, False]), [first[:, ::-1], second]),
        (np.array([True]), [first[:, ::-1], second[:, ::-1]]),
        (None, [first, second]),
    ):
        layout = Layout(4, 9, (4, 4), origins, None, *([] if flips is None else [flips]))
        assert layout.flips.shape == (2,)
        np.testing.assert_array_equal(layout.stack(Picture.from_array(image)), expected)
    with pytest.raises(ValueError, match="shape"):
        Layout(4, 9, (4, 4), origins, None, np.zeros(3, np.bool_))


def test_a_layout_reflects_unless_it_is_told() -> None:
    image = pixels(4, 4)
    layout = Layout(4, 4, (6, 6), np.array([(-1, -1)]), None)
    expected = np.pad(image, ((1, 1), (1, 1), (0, 0)), "reflect")
    np.testing.assert_array_equal(layout.stack(Picture.from_array(image)), expected[None])
