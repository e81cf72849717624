"""Images: a path or bytes → pixels, or one clear ImageError.

Pixels are what upstream sees: Pillow's RGB, alpha dropped, EXIF rotation not applied, first frame. A picture stays in
the mode it was decoded to and is converted crop by crop, so an image costs its decoded pixels once.
"""

import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from spai_runtime.errors import ImageError

# Decoders that are offered to untrusted files, and the extensions that a folder is searched for. Pillow can open
# more, some of them (EPS) by running other programs.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]  # Pillow's names of its resamplings

BAND_BYTES = 1 << 20  # of RGB pixels that are converted at a time

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # of a JPEG
_RGB = [ord(component) for component in "RGB"]  # names of a JPEG's components where they are no YCbCr

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # others take 4 in Pillow


class Picture:
    """One image, opened (its size is known) and perhaps not decoded yet.

    :param image: as Pillow opened it
    :raises ImageError: a mode without a defined range, or more pixels than Pillow's decompression-bomb limit
    """

    _file: str | os.PathLike[str] | bytes | None = None  # what it was opened from

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.width, self.height = image.size
        self._check_mode()

    @classmethod
    def open(cls, source: str | os.PathLike[str] | bytes) -> "Picture":
        """Reads the header alone; `load` decodes.

        :raises ImageError: not a readable regular file, or not an image of one of FORMATS
        """
        with _as_image_error():
            picture = cls(Image.open(_readable(source), formats=_formats()))
        picture._file = source
        return picture

    @classmethod
    def from_array(cls, pixels: NDArray[np.uint8]) -> "Picture":
        """:param pixels: (H, W, 3) uint8 RGB"""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise ImageError(f"an array of (height, width, 3) uint8 is wanted, not {pixels.shape} {pixels.dtype}")
        return cls(Image.fromarray(pixels))

    @property
    def nbytes(self) -> int:
        """Memory of the decoded pixels in bytes."""
        return self.width * self.height * _BYTES_PER_PIXEL.get(self._image.mode, 4)

    def load(self) -> "Picture":
        """Decodes. :raises ImageError: truncated or corrupt data"""
        with _as_image_error():
            self._image.load()
        return self

    def crop(self, top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        """The pixels of a box inside the image, (bottom − top, right − left, 3) uint8 RGB."""
        return np.asarray(_rgb(self._image.crop((left, top, right, bottom))))

    def array(self) -> NDArray[np.uint8]:
        """All pixels, (H, W, 3) uint8 RGB: a copy."""
        return self.crop(0, 0, self.height, self.width)

    def copy_into(self, out: NDArray[np.uint8]) -> None:
        """Writes all pixels of a decoded picture into `out`, (H, W, 3) uint8 RGB, band by band."""
        assert out.shape == (self.height, self.width, 3)
        rows = max(1, BAND_BYTES // (3 * self.width))
        for top in range(0, self.height, rows):
            bottom = min(top + rows, self.height)
            out[top:bottom] = self.crop(top, 0, bottom, self.width)

    def resized(self, height: int, width: int, filter: Filter) -> "Picture":  # noqa: A002  Pillow's word
        """A picture in RGB of its own pixels, as Pillow's `Image.resize` makes them of this one's RGB.

        At the size that it has, they are copied. While it runs, a picture that is not RGB is also there in RGB, at 4
        bytes a pixel.

        :raises ImageError: truncated or corrupt data, or too little memory
        """
        with _as_image_error():
            return Picture(_rgb(self._image).resize((width, height), Image.Resampling[filter.upper()]))

    def close(self) -> None:
        """Lets go of the file and of the decoded pixels."""
        self._image.close()

    def jpeg(self) -> bytes | None:
        """The file, where it is a whole JPEG of grey or YCbCr, which every decoder reads alike; None of all others.

        Half a file, which Pillow calls truncated, is grey from there on to some.
        """
        image = self._image
        components = [component for component, *_ in getattr(image, "layer", [])]
        plain = image.mode in ("RGB", "L") and components != _RGB and image.info.get("adobe_transform") != 0
        if self._file is None or image.format != "JPEG" or not plain:
            return None
        try:
            content = self._file if isinstance(self._file, bytes) else Path(self._file).read_bytes()
        except OSError:
            return None
        return content if content.rfind(_END_OF_IMAGE) > content.rfind(_START_OF_SCAN) else None

    def _check_mode(self) -> None:
        mode = self._image.mode
        if mode in ("I", "F", "LAB", "La", "RGBa"):
            raise ImageError(f"pixels of mode {mode} have no defined 8-bit range; convert the file to 8 or 16 bits RGB")


def pixel_limit() -> float:
    """How many pixels an image may have: above it, Pillow takes a file for a decompression bomb."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else math.inf


def read_image(source: str | os.PathLike[str] | bytes) -> NDArray[np.uint8]:
    """A path or the bytes of a file → (H, W, 3) uint8 RGB.

    :raises ImageError: whatever is wrong with it, in one sentence
    """
    return Picture.open(source).load().array()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # the high byte, as Pillow reads 16-bit RGB
        return Image.fromarray(grey).convert("RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Palette images with Transparency": alpha is dropped on purpose
        return image if image.mode == "RGB" else image.convert("RGB")


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _readable(source: str | os.PathLike[str] | bytes) -> BinaryIO | Path:
    """Refuses what would block (a pipe) or is no file, and gives Pillow the rest."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    status = Path(source).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty")
    return Path(source)


@contextmanager
def _as_image_error() -> Iterator[None]:
    """Decoders raise whatever their format makes them trip over; all of it is this one image's error."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in a format that can be read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{_sentence(error)}; resize it, or raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or _sentence(error)}") from error
    except Exception as error:
        raise ImageError(f"cannot be decoded: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__
