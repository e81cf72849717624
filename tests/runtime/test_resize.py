"""Resizes against torchvision's and Pillow's, of every mode that a file decodes to."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import Resize as TorchResize
from torchvision.transforms.functional import _compute_resized_output_size

from spai_runtime.errors import ImageError
from spai_runtime.images import Filter, Picture
from spai_runtime.views import Resize
from tests.support.images import Write, pixels, write_odd_images

FILTERS: tuple[Filter, ...] = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
MODES = {"RGB": "png", "L": "png", "1": "png", "P": "png", "RGBA": "png", "LA": "png", "CMYK": "tif", "YCbCr": "tif"}

SIDES = st.integers(1, 90) | st.sampled_from([1, 2, 3, 30])


@given(height=st.integers(1, 70_000), width=st.integers(1, 70_000), side=st.integers(1, 3000))
@example(height=1, width=70_000, side=3000)
@example(height=299, width=300, side=299)
@settings(max_examples=500, deadline=None)
def test_sizes_are_torchvisions(height: int, width: int, side: int) -> None:
    shorter = _compute_resized_output_size((height, width), [side])
    assert Resize(side).size(height, width) == tuple(shorter)
    square = _compute_resized_output_size((height, width), [side, side])
    assert Resize(side, "square").size(height, width) == tuple(square)


@pytest.mark.parametrize("name", FILTERS)
@given(height=SIDES, width=SIDES, side=st.integers(1, 60))
@example(height=30, width=41, side=30)  # already of that side
@example(height=30, width=30, side=30)
@example(height=1, width=1, side=7)
@settings(max_examples=40, deadline=None)
def test_pixels_are_torchvisions(name: Filter, height: int, width: int, side: int) -> None:
    image = pixels(height, width)
    for resize, size in ((Resize(side, "shorter", name), side), (Resize(side, "square", name), (side, side))):
        resized = Picture.from_array(image).resized(*resize.size(height, width), resize.filter)
        expected = np.asarray(TorchResize(size, InterpolationMode(name))(Image.fromarray(image)))
        np.testing.assert_array_equal(resized.array(), expected)
        assert (resized.height, resized.width) == expected.shape[:2]


@pytest.mark.parametrize("size", [(17, 60), (30, 41), (30, 9)], ids=str)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_resized_in_rgb(photo: Write, mode: str, name: Filter, size: tuple[int, int]) -> None:
    path, (height, width) = photo(f"a.{MODES[mode]}", 30, 41, mode=mode), size
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling[name.upper()]))
    resized = Picture.open(path).load().resized(height, width, name)
    np.testing.assert_array_equal(resized.array(), expected)
    assert resized.nbytes == 4 * height * width  # Pillow's RGB


@pytest.mark.parametrize("name", ["palette.png", "cmyk.jpg", "rgba.png", "la.png", "animated.gif", "rotated.jpg"])
def test_odd_files(tmp_path: Path, name: str) -> None:
    write_odd_images(tmp_path)
    with Image.open(tmp_path / name) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(image.convert("RGB").resize((20, 30), Image.Resampling.BICUBIC))
    picture = Picture.open(tmp_path / name).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # palette.png has a transparency that Pillow remarks on
        resized = picture.resized(30, 20, "bicubic")
    picture.close()  # the file of an animation stays open until then
    np.testing.assert_array_equal(resized.array(), expected)


def test_alpha_does_not_weigh_pixels() -> None:
    """As it does where Pillow resizes an image with alpha, whose transparent pixels then count for nothing."""
    colour, alpha = pixels(40, 40), pixels(40, 40, seed=1)[:, :, :1]
    with_alpha = Picture(Image.fromarray(np.concatenate((colour, alpha), axis=2)))
    expected = np.asarray(Image.fromarray(colour).resize((13, 11), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(with_alpha.resized(11, 13, "bicubic").array(), expected)


def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    resized = Picture.open(tmp_path / "a.png").load().resized(9, 11, "lanczos")
    high = Image.fromarray(np.stack([grey // 256] * 3, axis=2).astype(np.uint8))
    np.testing.assert_array_equal(resized.array(), np.asarray(high.resize((11, 9), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(30, 41), (9, 9)], ids=str)
def test_it_has_its_own_pixels(photo: Write, mode: str, size: tuple[int, int]) -> None:
    """So that the picture it was made from can be closed, and is as it was until then."""
    picture = Picture.open(photo(f"a.{MODES[mode]}", 30, 41, mode=mode)).load()
    before = picture.array()
    resized = picture.resized(*size, "bilinear")
    np.testing.assert_array_equal(picture.array(), before)
    expected = resized.array()
    picture.close()
    np.testing.assert_array_equal(resized.array(), expected)


def test_it_is_no_jpeg_any_more(photo: Write) -> None:
    """A GPU would decode the file, at the size that it has."""
    picture = Picture.open(photo("a.jpg", 30, 41)).load()
    assert picture.jpeg() is not None
    assert picture.resized(30, 41, "box").jpeg() is None


def test_what_cannot_be_resized(photo: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    content = photo("a.jpg", 400, 400).read_bytes()
    with pytest.raises(ImageError, match="truncated"):
        Picture.open(content[: len(content) // 2]).resized(20, 20, "bicubic")

    def resize(*_: Any) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", resize)
    with pytest.raises(ImageError, match="not enough memory"):
        Picture.open(content).resized(20, 20, "bicubic")


def test_a_side_is_at_least_a_pixel() -> None:
    with pytest.raises(ValueError, match="a resize to a side of 0: it must be at least 1"):
        Resize(0)
