"""Mutated images: one ImageError of one line or pixels, in the memory that was foretold and in bounded time."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from spai_runtime.errors import ImageError
from spai_runtime.images import FORMATS, Picture
from tests.fuzz.attempts import CPU_SECONDS
from tests.fuzz.mutation import Edit, edits, limits, mutated
from tests.support.bombs import flat_png, webp
from tests.support.images import pixels

SLACK = 24 << 20  # bytes: libraries that load when they are first needed, and what the heap keeps
MOST_PIXELS = 1 << 20  # so that a header that claims much is refused soon; the limit itself is tested elsewhere

RGB = Image.fromarray(pixels(41, 53))
GREY16 = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (41, 53)).astype(np.uint16))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


SEEDS: dict[str, bytes] = {
    "baseline.jpg": saved(RGB, "JPEG"),
    "progressive.jpg": saved(RGB, "JPEG", progressive=True, subsampling=0),
    "grey.jpg": saved(RGB.convert("L"), "JPEG", restart_marker_blocks=2),
    "cmyk.jpg": saved(RGB.convert("CMYK"), "JPEG"),
    "exif.jpg": saved(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", comment="x"),
    "two.mpo": saved(RGB, "MPO", save_all=True, append_images=[RGB]),
    "rgb.png": saved(RGB, "PNG"),
    "palette.png": saved(RGB.quantize(40), "PNG", transparency=bytes(range(40))),
    "bits.png": saved(RGB.convert("1"), "PNG"),
    "16.png": saved(GREY16, "PNG"),
    "alpha.png": saved(RGB.convert("RGBA"), "PNG"),
    "animated.png": saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]),
    "flat.png": flat_png(900, 900),
    "lossy.webp": saved(RGB, "WEBP"),
    "lossless.webp": saved(RGB.convert("RGBA"), "WEBP", lossless=True),
    "animated.webp": saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
    "bomb.webp": webp(1000, 1000),
    "420.avif": saved(RGB, "AVIF", speed=10),
    "alpha.avif": saved(RGB.convert("RGBA"), "AVIF", speed=10, subsampling="4:4:4"),
    "raw.tif": saved(RGB, "TIFF"),
    "lzw.tif": saved(RGB, "TIFF", compression="tiff_lzw", strip_size=500),
    "deflate.tif": saved(RGB.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "jpeg.tif": saved(RGB, "TIFF", compression="jpeg"),
    "fax.tif": saved(RGB.convert("1"), "TIFF", compression="group4"),
    "16.tif": saved(GREY16, "TIFF"),
    "palette.gif": saved(RGB, "GIF"),
    "animated.gif": saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)], disposal=2),
    "rgb.bmp": saved(RGB, "BMP"),
    "palette.bmp": saved(RGB.quantize(200), "BMP"),
    "rgb.jp2": saved(RGB, "JPEG2000"),
    "tiles.jp2": saved(RGB.convert("LA"), "JPEG2000", tile_size=(16, 16), no_jp2=True),
    "binary.ppm": saved(RGB, "PPM"),
    "plain.ppm": b"P3 53 41 255\n" + b" ".join(b"%d" % value for value in np.asarray(RGB).ravel()),
    "bits.pbm": saved(RGB.convert("1"), "PPM"),
}


def test_there_is_a_seed_of_every_format() -> None:
    assert {Image.open(io.BytesIO(seed)).format for seed in SEEDS.values()} == set(FORMATS)


@pytest.fixture(autouse=True)
def _few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS)


@pytest.mark.filterwarnings("ignore")  # a decoder's remarks
@pytest.mark.parametrize("name", SEEDS)
def test_mutated_images(name: str) -> None:
    before = attempt(SEEDS[name])
    assert before, "the seed itself is decoded"

    @limits(examples=60)
    @given(changes=edits())
    def fuzz(changes: list[Edit]) -> None:
        attempt(mutated(SEEDS[name], changes))

    fuzz()


def attempt(content: bytes) -> bool:
    """Whether it is decoded; fails where that takes more than it may, or raises what it should not."""
    started, before, said = time.process_time(), fresh_peak(), 0
    try:
        picture = Picture.open(content)
        said = picture.decoding_nbytes + 8 * picture.width * picture.height  # its RGB, and the array of that
        found = picture.load().array()
        assert (found.shape, found.dtype) == ((picture.height, picture.width, 3), np.uint8)
        picture.close()
    except ImageError as error:
        assert str(error).isprintable(), str(error)
        return False
    finally:
        assert time.process_time() - started < CPU_SECONDS
        assert peak() - before <= said + SLACK
    return True


def fresh_peak() -> int:
    """Resident memory in bytes, from where its high-water mark begins anew."""
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS:")


def peak() -> int:
    return _status("VmHWM:") if sys.platform == "linux" else 0


def _status(name: str) -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[0])
