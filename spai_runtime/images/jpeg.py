"""The cost of decoding a JPEG, which its header does not say: coefficients that are kept, and scans.

A baseline JPEG is decoded row by row. A JPEG whose coefficients come in several scans (a progressive one, or one with a
scan for each colour) keeps them all, 2 bytes each, and goes through them once for each scan, however short the scan is
(libjpeg-turbo, `jdcoefct.c`): a megabyte may hold thousands of scans.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from spai_runtime.errors import ImageError

MOST_SCANS = 50  # encoders write up to about twenty

_COEFFICIENT_BYTES = 2
_BLOCK = 8  # pixels along a side
_SEQUENTIAL = (0xC0, 0xC1)  # start of a frame whose coefficients come once: baseline and extended

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables and a reserved code
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # not those that stand within a scan


class Bytes(Protocol):
    """A type that `bytes` and `mmap` both have."""

    def __getitem__(self, index: slice, /) -> bytes: ...


def kept_bytes(content: Bytes, size: tuple[int, int], sampling: Sequence[tuple[int, int]]) -> int:
    """The memory in which a decoder keeps coefficients; 0 for a JPEG that is decoded row by row.

    :param content: the content of the file
    :param size: width and height in pixels
    :param sampling: horizontal and vertical factors of the components
    :raises ImageError: the file has more than MOST_SCANS scans
    """
    frame, scans = 0, 0
    for marker, position in _markers(content):
        if marker in _FRAMES:
            frame = marker
        elif marker == _START_OF_SCAN:
            scans += 1
            components = content[position + 2 : position + 3]
            if scans == 1 and frame in _SEQUENTIAL and components == bytes([len(sampling)]):
                return 0
            if scans > MOST_SCANS:
                raise ImageError(f"a JPEG of more than {MOST_SCANS} scans, which is not decoded: save it anew")
    most = [max(factors) for factors in zip(*sampling, strict=True)]
    padded = [math.ceil(side / (_BLOCK * factor)) * _BLOCK for side, factor in zip(size, most, strict=True)]
    return _COEFFICIENT_BYTES * sum(math.prod(map(math.prod, zip(padded, own, strict=True))) for own in sampling)


def _markers(content: Bytes) -> Iterator[tuple[int, int]]:
    """Find the markers up to the end of the image, each with the position where its segment begins."""
    position = 0
    while found := _MARKER.search(content, position):  # type: ignore[call-overload]
        marker, position = content[found.start() + 1 : found.end()][0], found.end()
        if marker == _END_OF_IMAGE:
            return
        if marker != _START_OF_IMAGE:
            yield marker, position
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
