"""Every kind of file → Pillow's RGB, or one ImageError."""

import errno
import io
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spai_runtime.errors import ImageError
from spai_runtime.images import Picture, read_image
from tests.support.images import Write, pixels, png, write_bad_images, write_odd_images
from tests.support.users import as_nobody

BAD = (
    "truncated.jpg",
    "empty.jpg",
    "text.jpg",
    "header_only.png",
    "bomb.png",
    "broken_link.jpg",
    "link_loop.jpg",
    "pipe.jpg",
    "float.tif",
    "lab.tif",
)
MODES = {
    "RGB": ("png", 4),
    "L": ("png", 1),
    "1": ("png", 1),
    "P": ("png", 1),
    "RGBA": ("png", 4),
    "LA": ("png", 4),
    "CMYK": ("tif", 4),
    "YCbCr": ("tif", 4),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    expected = write_bad_images(tmp_path)[name]
    with pytest.raises(ImageError, match=expected) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file(open_folder: Path) -> None:
    path = open_folder / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    path.chmod(0)
    Image.init()
    with as_nobody(), pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", png(3, 3), b"\xff\xd8\xff\xe0" * 9])
def test_bad_bytes(content: bytes) -> None:
    with pytest.raises(ImageError):
        read_image(content)


def test_the_limit_of_decompression_bombs_is_pillows(monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)  # an error above twice as many
    assert read_image(photo("fits.png", 20, 40)).shape == (20, 40, 3)
    with pytest.raises(ImageError, match=r"resize it, or raise PIL\.Image\.MAX_IMAGE_PIXELS"):
        read_image(photo("bomb.png", 41, 40))


@pytest.mark.parametrize("suffix", ["webp", "avif", "png"])
def test_no_large_file_is_read_whole(photo: Write, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A PNG is decoded piece by piece, however large its file is."""
    path = photo(f"a.{suffix}", 20, 40)
    with path.open("ab") as file:
        file.truncate(2 << 20)
    assert read_image(path).shape == (20, 40, 3)
    monkeypatch.setattr("spai_runtime.images.opening.LARGEST_WHOLE", 1 << 20)
    if suffix == "png":
        assert read_image(path).shape == (20, 40, 3)
        return
    with pytest.raises(ImageError, match="a WebP or AVIF of 2 MiB, and at most 1 are read"):
        read_image(path)


def test_too_many_open_files_are_waited_for(photo: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, busy = photo("a.jpg", 20, 40), Image.open, [True] * 3

    def open_file(*arguments: Any, **options: Any) -> Image.Image:
        if busy and busy.pop():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", open_file)
    assert read_image(path).shape == (20, 40, 3)
    busy += [True] * 10_000
    monkeypatch.setattr("spai_runtime.images.opening.PATIENCE", 0.1)
    with pytest.raises(ImageError, match="Too many open files"):
        read_image(path)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_pillows_rgb(photo: Write, mode: str) -> None:
    suffix, bytes_per_pixel = MODES[mode]
    path = photo(f"a.{suffix}", 30, 41, mode=mode)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))
    picture = Picture.open(path).load()
    np.testing.assert_array_equal(picture.array(), expected)
    np.testing.assert_array_equal(picture.crop(3, 5, 20, 41), expected[3:20, 5:41])
    assert picture.crop(3, 5, 20, 41).dtype == np.uint8
    assert (picture.height, picture.width, picture.nbytes) == (30, 41, 30 * 41 * bytes_per_pixel)


@pytest.mark.parametrize("name", ["palette.png", "cmyk.jpg", "rgba.png", "la.png", "animated.gif", "rotated.jpg"])
def test_odd_files_are_pillows_rgb(tmp_path: Path, name: str) -> None:
    write_odd_images(tmp_path)
    with Image.open(tmp_path / name) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(image.convert("RGB"))
    assert expected.shape == (40, 50, 3)  # the first frame; not rotated
    picture = Picture.open(tmp_path / name).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # palette.png has a transparency that Pillow remarks on
        np.testing.assert_array_equal(picture.array(), expected)
        np.testing.assert_array_equal(picture.crop(7, 0, 40, 33), expected[7:40, 0:33])


def test_alpha_is_dropped(tmp_path: Path) -> None:
    colour, alpha = pixels(9, 9), np.zeros((9, 9, 1), np.uint8)
    Image.fromarray(np.concatenate((colour, alpha), axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colour)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    picture = Picture.open(tmp_path / f"a.{suffix}").load()
    assert picture.nbytes == {"png": 2, "tif": 1}[suffix] * grey.size  # decoded apart, it comes as its high bytes
    np.testing.assert_array_equal(picture.array(), np.stack([grey // 256] * 3, axis=2))


def test_16_bit_rgb_keeps_its_high_byte() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)  # Pillow reads such a PNG and cannot write it
    np.testing.assert_array_equal(read_image(png(30, 20, 16, zlib.compress(rows))), wide // 256)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1)])
def test_slivers(photo: Write, height: int, width: int) -> None:
    np.testing.assert_array_equal(read_image(photo("a.png", height, width)), pixels(height, width))


@pytest.mark.parametrize("name", [b"comma, and\nnewline.png", b"latin-\xe9.png", "ünï.png".encode()])
def test_names(photo: Write, name: bytes) -> None:
    path = photo("a.png", 5, 6)
    named = path.rename(path.parent / os.fsdecode(name))
    np.testing.assert_array_equal(read_image(named), pixels(5, 6))


def test_bytes_and_arrays(photo: Write) -> None:
    content = photo("a.png", 12, 13).read_bytes()
    np.testing.assert_array_equal(read_image(content), pixels(12, 13))
    np.testing.assert_array_equal(Picture.from_array(pixels(12, 13)).array(), pixels(12, 13))


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "rgba", "float", "none"],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ImageError, match=r"\(height, width, 3\) uint8"):
        Picture.from_array(array)


def test_opening_does_not_decode(photo: Write) -> None:
    content = photo("a.jpg", 400, 400).read_bytes()
    picture = Picture.open(content[: len(content) // 2])
    assert (picture.height, picture.width) == (400, 400)
    with pytest.raises(ImageError, match="truncated"):
        picture.load()


def test_programs_are_not_run_for_a_file(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript; it is no format of ours."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "EPS")
    (tmp_path / "a.jpg").write_bytes(content.getvalue())
    with pytest.raises(ImageError, match="not an image in a format that can be read"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", MODES)
def test_into_memory_that_is_there(photo: Write, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Band by band, the last one smaller."""
    monkeypatch.setattr("spai_runtime.images.picture.BAND_BYTES", 7 * 3 * 41)
    picture = Picture.open(photo(f"a.{MODES[mode][0]}", 30, 41, mode=mode)).load()
    expected, bands, crop = picture.array(), [], picture.crop

    def cropped(*box: int) -> np.ndarray:  # type: ignore[type-arg]
        bands.append(box)
        return crop(*box)

    monkeypatch.setattr(picture, "crop", cropped)
    out = np.zeros((30, 41, 3), np.uint8)
    picture.copy_into(out)
    np.testing.assert_array_equal(out, expected)
    assert bands == [(top, 0, min(top + 7, 30), 41) for top in range(0, 30, 7)]


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1), (2, 400_000)])
def test_slivers_into_memory(height: int, width: int) -> None:
    out = np.zeros((height, width, 3), np.uint8)
    Picture.from_array(pixels(height, width)).copy_into(out)
    np.testing.assert_array_equal(out, pixels(height, width))
