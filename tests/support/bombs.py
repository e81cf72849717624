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
