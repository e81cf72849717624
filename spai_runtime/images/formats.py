"""The table of image formats: what a folder is searched for, and what a decoder costs beside the pixels.

A header says how many pixels there will be before they are decoded; a row of the table says what else the decoder then
allocates. A budget of memory grants the sum of both, so that a file cannot take more than it was granted.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A row of the table.

    :param extensions: the file extensions that a folder is searched for
    :param working_bytes: bytes per pixel that decoding takes at most beside the pixels themselves. Those of a JPEG are
        counted for each file (`spai_runtime.images.jpeg`)
    :param reads_whole: whether Pillow takes the compressed file into memory
    :param apart: whether it is decoded in a process of its own, with limits on memory and time: its decoder is large,
        has had more bugs than most, and the header does not tell how long it takes
    :param trusted: whether it is opened under `--untrusted`. Formats that are not are rare on the web and popular with
        attackers; libvips blocks most of them too (`vips_block_untrusted_set`)
    """

    extensions: tuple[str, ...]
    working_bytes: int = 0
    reads_whole: bool = False
    apart: bool = False
    trusted: bool = True


# Names are Pillow's. It can open more formats, some of them (EPS) by running other programs. The bytes of each decoder
# follow from its buffers, and `tests/runtime/test_decoder_memory.py` measures them:
# WebP: two canvases of 4 bytes and a copy of one (WebPAnimDecoder, whatever the file holds).
# AVIF: planes of 16 bits of the decoder and of its film grain, alpha too, and what Pillow gets, 4 bytes.
# TIFF: a strip as large as the image, of 16 bits and 4 channels, or its JPEG's coefficients.
# BMP: run lengths are decoded into a bytearray, which grows by an eighth, and copied.
# JPEG 2000: each channel as int32, a whole tile of them beside their 16 bits.
# PPM: plain text is decoded into a bytearray of 3 bytes a pixel, and copied.
FORMATS: Mapping[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif")),
    "MPO": Format((".mpo",)),
    "PNG": Format((".png", ".apng")),
    "WEBP": Format((".webp",), working_bytes=12, reads_whole=True),
    "AVIF": Format((".avif",), working_bytes=20, reads_whole=True, apart=True),
    "TIFF": Format((".tif", ".tiff"), working_bytes=12, apart=True, trusted=False),
    "GIF": Format((".gif",), working_bytes=1),
    "BMP": Format((".bmp", ".dib"), working_bytes=4, trusted=False),
    "JPEG2000": Format((".jp2", ".j2k", ".jpx"), working_bytes=26, apart=True, trusted=False),
    "PPM": Format((".ppm", ".pgm", ".pbm", ".pnm"), working_bytes=8, trusted=False),
}
EXTENSIONS = frozenset(extension for row in FORMATS.values() for extension in row.extensions)
UNTRUSTED_FORMATS = tuple(name for name, row in FORMATS.items() if row.trusted)  # that are opened under `--untrusted`
