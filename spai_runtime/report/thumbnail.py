"""Thumbnails: an image file becomes a small WebP, which has no more bytes than a page has room for."""

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from spai_runtime.errors import ImageError
from spai_runtime.files.stamps import Stamp
from spai_runtime.images import FORMATS, Picture

QUALITIES = (80, 50, 25, 0)  # of WebP, the next where the one before takes too many bytes


@dataclass(frozen=True)
class Detail:
    """The size of the thumbnails of a report, which is limited so that the page's file is too.

    :param side: the longer side in pixels, at most
    :param nbytes: the bytes of a WebP, at most
    """

    side: int
    nbytes: int

    @classmethod
    def of(cls, images: int) -> "Detail":
        """The detail for a report. :param images: the number of images in the whole report"""
        return next(detail for most, detail in _DETAILS if images <= most)


# A page is then at most 8, 27 and 54 MB of thumbnails in base64, with 100, 1,000 and 10,000 images.
_DETAILS = (
    (100, Detail(640, 60_000)),
    (1_000, Detail(384, 20_000)),
    (float("inf"), Detail(160, 4_000)),
)

# Pillow's names of what EXIF's orientations ask for.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of an image.

    :param webp: the file's content, turned as people want to see it
    :param orientation: how the stored pixels were turned, as EXIF says: 1 (not at all) to 8
    """

    webp: bytes
    orientation: int = 1

    @property
    def turned(self) -> bool:
        """Whether width and height of the image are exchanged."""
        return self.orientation >= 5

    @classmethod
    def of(
        cls, path: Path, detail: Detail, formats: Collection[str] = FORMATS, scored: Stamp | None = None
    ) -> "Thumbnail":
        """Make the thumbnail of a file.

        :param formats: the formats that are decoded
        :param scored: the stamp of the file that was scored; None if it is not known
        :raises ImageError: the file is missing, is no image, or has changed since it was scored
        """
        if scored is not None and Stamp.of(path) != scored:
            raise ImageError("the file has changed since it was scored")
        return cls.of_picture(Picture.open(path, formats), detail)

    @classmethod
    def of_picture(cls, picture: Picture, detail: Detail) -> "Thumbnail":
        """Make the thumbnail of a picture.

        :param picture: an open picture; it cannot be used afterwards
        :raises ImageError: the picture cannot be decoded
        """
        small = picture.reduced(detail.side)
        orientation = picture.orientation
        picture.close()
        image = Image.fromarray(small.array())
        turn = _TURNS.get(orientation)
        return cls(_webp(image if turn is None else image.transpose(turn), detail.nbytes), orientation)


def _webp(image: Image.Image, most: int) -> bytes:
    """Encode an image. :param most: bytes at most; noise gets fewer pixels if no quality makes it small enough"""
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            image.save(file, "WEBP", quality=quality)
            if file.tell() <= most:
                return file.getvalue()
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BOX)
