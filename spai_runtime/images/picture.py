"""A picture is one image: it is opened, then decoded, then cropped.

Pixels are the same as upstream: Pillow's RGB, alpha dropped, EXIF rotation not applied, first frame. A picture stays in
the mode it was decoded to and is converted crop by crop, so an image costs its decoded pixels once.
"""

import math
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from spai_runtime.errors import ImageError
from spai_runtime.images import jpeg, modes
from spai_runtime.images.formats import FORMATS, Format
from spai_runtime.images.freed import give_back
from spai_runtime.images.opening import Source, as_image_error, compressed_nbytes, mapped, opened

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]  # Pillow's names of its resamplings

BAND_BYTES = 1 << 20  # of RGB pixels that are converted at a time
GIVEN_BACK = 16 << 20  # bytes that a decoder has freed, beyond which the system gets them back at once

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # of a JPEG
_RGB = [ord(component) for component in "RGB"]  # names of a JPEG's components where they are no YCbCr


class Picture:
    """One image that is open, so its size is known; it may not be decoded yet.

    :param image: as Pillow opened it
    :raises ImageError: its mode has no defined range, or it has more pixels than Pillow's decompression-bomb limit
    """

    _file: Source | None = None  # what it was opened from
    _working = 0  # bytes that the decoder takes beside the pixels
    _apart = False  # whether it is still to be decoded in a process of its own

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.width, self.height = image.size
        modes.check(image.mode)

    @classmethod
    def open(cls, source: Source, formats: Collection[str] = FORMATS) -> "Picture":
        """Open an image and read only its header; `load` decodes it.

        :param formats: those of FORMATS that may be decoded; UNTRUSTED_FORMATS are those for files from strangers
        :raises ImageError: it is not a readable regular file, or not an image of one of the formats
        """
        with as_image_error(formats):
            picture = cls(opened(source, formats))
            picture._file = source
            picture._working, picture._apart = picture._working_bytes(), picture._format.apart
        return picture

    @classmethod
    def from_array(cls, pixels: NDArray[np.uint8]) -> "Picture":
        """Make a picture from an array. :param pixels: (H, W, 3) uint8 RGB"""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise ImageError(f"an array of (height, width, 3) uint8 is wanted, not {pixels.shape} {pixels.dtype}")
        return cls(Image.fromarray(pixels))

    @property
    def nbytes(self) -> int:
        """The memory of the decoded pixels in bytes."""
        mode = modes.plain(self._image.mode) if self._apart else self._image.mode
        return self.width * self.height * modes.bytes_per_pixel(mode)

    @property
    def decoding_nbytes(self) -> int:
        """The memory in bytes that `load` takes at most, with the pixels."""
        return self.nbytes + self._working

    def load(self) -> "Picture":
        """Decode the image. :raises ImageError: its data is truncated or corrupt"""
        with as_image_error():
            if self._apart:
                self._image = self._decoded_apart()
            self._image.load()
        vars(self._image).pop("_decoder", None)  # of WebP, which Pillow keeps, with two canvases of 4 bytes a pixel
        if self._working > GIVEN_BACK:
            give_back()
        self._working, self._apart = 0, False
        return self

    def crop(self, top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        """The pixels of a box inside the image, (bottom − top, right − left, 3) uint8 RGB."""
        return np.asarray(modes.as_rgb(self._pixels.crop((left, top, right, bottom))))

    def array(self) -> NDArray[np.uint8]:
        """A copy of all pixels, (H, W, 3) uint8 RGB."""
        return self.crop(0, 0, self.height, self.width)

    def copy_into(self, out: NDArray[np.uint8]) -> None:
        """Write all pixels of a decoded picture into `out`, (H, W, 3) uint8 RGB, band by band."""
        assert out.shape == (self.height, self.width, 3)
        rows = max(1, BAND_BYTES // (3 * self.width))
        for top in range(0, self.height, rows):
            bottom = min(top + rows, self.height)
            out[top:bottom] = self.crop(top, 0, bottom, self.width)

    def resized(self, height: int, width: int, filter: Filter) -> "Picture":  # noqa: A002  Pillow's word
        """A new picture in RGB: this one in another size, with the pixels of Pillow's `Image.resize`.

        If the size does not change, the pixels are copied. While this runs, a picture that is not RGB is also held in
        RGB, at 4 bytes a pixel.

        :raises ImageError: the data is truncated or corrupt, or there is too little memory
        """
        with as_image_error():
            return Picture(modes.as_rgb(self._pixels).resize((width, height), Image.Resampling[filter.upper()]))

    def reduced(self, side: int) -> "Picture":
        """A picture in RGB with at most `side` pixels a side, for people to look at; this picture cannot be used again.

        A JPEG that is not decoded yet is decoded only as far as that needs, so its pixels differ from those of
        `resized`.

        :raises ImageError: the data is truncated or corrupt, or there is too little memory
        """
        scale = min(1.0, side / max(self.width, self.height))
        size = max(1, round(scale * self.width)), max(1, round(scale * self.height))
        with as_image_error():
            if not self._apart:
                self._image.draft(None, size)  # None keeps the mode
            self.load()
            return Picture(modes.as_rgb(self._image).resize(size, Image.Resampling.BICUBIC, reducing_gap=3))

    @property
    def orientation(self) -> int:
        """The orientation in EXIF, known once the picture is decoded: 1 (as stored) to 8; 1 if there is none.

        Detectors do not use it: scores and layouts are those of the pixels as they are stored.
        """
        with suppress(Exception):  # whatever a parser trips over in a header that nothing depends on
            found = self._image.getexif().get(Base.Orientation, 1)
            return found if found in range(1, 9) else 1
        return 1

    def close(self) -> None:
        """Release the file and the decoded pixels."""
        self._image.close()

    def jpeg(self) -> bytes | None:
        """The file, if it is a complete JPEG in grey or YCbCr, which all decoders read alike; None for all others.

        If half of a file is missing, some decoders fill the rest with grey; Pillow calls it truncated.
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

    @property
    def _pixels(self) -> Image.Image:
        return self.load()._image if self._apart else self._image

    @property
    def _format(self) -> Format:
        assert self._image.format is not None, "it is no file's"
        return FORMATS[self._image.format]

    def _working_bytes(self) -> int:
        assert self._file is not None
        if layers := getattr(self._image, "layer", None):  # of a JPEG: name and factors of each component
            with mapped(self._file, self._image) as content:
                return jpeg.kept_bytes(content, self._image.size, [layer[1:3] for layer in layers])
        row = self._format
        whole = compressed_nbytes(self._file) if row.reads_whole else 0
        return row.working_bytes * self.width * self.height + whole

    def _decoded_apart(self) -> Image.Image:
        from spai_runtime.images import apart  # noqa: PLC0415  for formats that most folders have none of

        assert self._file is not None
        self._image.close()
        return apart.decoded(self._file, self._image, self.decoding_nbytes)


def pixel_limit() -> float:
    """The number of pixels that an image may have; Pillow takes a file with more for a decompression bomb."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else math.inf


def read_image(source: Source) -> NDArray[np.uint8]:
    """Read an image from a path or from the bytes of a file, as (H, W, 3) uint8 RGB.

    :raises ImageError: it cannot be read; the message says why, in one sentence
    """
    return Picture.open(source).load().array()
