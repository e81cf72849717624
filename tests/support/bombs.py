"""Files of a few bytes whose headers claim very many pixels, and which decoders decode."""

import struct
import zlib

from tests.support.images import png


def webp(width: int, height: int) -> bytes:
    """Lossless, black and transparent: every pixel takes no bit (RFC 9649, section 3)."""
    bits = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (1, 1), (0, 3)]  # signature, sides, alpha, version
    bits += [(0, 1), (0, 1), (0, 1)]  # no transform, no colour cache, one set of prefix codes
    bits += [(1, 1), (0, 1), (0, 1), (0, 1)] * 5  # each of one symbol, 0
    value = length = 0
    for number, count in bits:
        value |= number << length
        length += count
    data = value.to_bytes((length + 7) // 8, "little")
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def flat_png(width: int, height: int) -> bytes:
    """RGB, all black."""
    pack = zlib.compressobj(9)
    line = bytes(1 + 3 * width)
    return png(width, height, data=b"".join([*(pack.compress(line) for _ in range(height)), pack.flush()]))


def overlapping_tags(count: int, nbytes: int) -> bytes:
    """A TIFF of 16×16 grey pixels, and so many tags which all have the same bytes for their content."""
    end = 8 + 2 + 12 * (count + 9) + 4
    short, plain = 3, {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: end, 277: 1, 278: 16, 279: 256}
    tags = [struct.pack("<HHII", tag, short if value < 1 << 16 else 4, 1, value) for tag, value in plain.items()]
    tags += [struct.pack("<HHII", 40000 + number, 7, nbytes, end) for number in range(count)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4 + nbytes)


def with_exif(jpeg: bytes, content: bytes) -> bytes:
    """A JPEG with EXIF in several segments, and without the density that would keep Pillow from reading it."""
    parts = [content[start : start + 65_000] for start in range(0, len(content), 65_000)]
    segments = [b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part for part in parts]
    return jpeg[:2] + b"".join(segments) + jpeg[20:]
