"""Machine code of one kind of GPU in a library: that of all others is zeroed, where it stands, and packs to nothing.

A section whose name holds `fatbin` (ELF64, little-endian) is a row of containers. A container: magic, version and its
own header's length (2 bytes each), length of what follows (8). An entry of it: 4 bytes, its header's length (4), length
of its code (8), 12 bytes, compute capability × 10 (4), and code after the header. NVIDIA documents neither; both are
as `cuobjdump --list-elf` reads them.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"\x50\xed\x55\xba"

Bytes = mmap.mmap | bytes | bytearray


class Code(NamedTuple):
    """Machine code for one architecture: where it lies in the library.

    :param architecture: compute capability × 10
    """

    architecture: int
    start: int
    length: int


def keep(library: Path, architecture: int) -> int:
    """:returns: bytes zeroed
    :raises ValueError: there is no code for that architecture
    """
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        found = list(codes(data))
        there = sorted({code.architecture for code in found})
        if architecture not in there:
            held = ", ".join(map(str, there)) or "no machine code of GPUs"
            raise ValueError(f"{library.name} holds {held}, and nothing for {architecture}")
        others = [code for code in found if code.architecture != architecture]
        for code in others:
            data[code.start : code.start + code.length] = bytes(code.length)
    return sum(code.length for code in others)


def codes(data: Bytes) -> Iterator[Code]:
    """Of all architectures."""
    for start, end in _sections(data):
        at = data.find(MAGIC, start, end)
        while at >= 0:
            header, length = struct.unpack_from("<HQ", data, at + 6)
            yield from _entries(data, at + header, at + header + length)
            at = data.find(MAGIC, at + header + length, end)


def _entries(data: Bytes, start: int, end: int) -> Iterator[Code]:
    while start < end:
        header, length = struct.unpack_from("<IQ", data, start + 4)
        (architecture,) = struct.unpack_from("<I", data, start + 28)
        if not header:  # what is left is padding
            return
        yield Code(architecture, start + header, length)
        start += header + length


def _sections(data: Bytes) -> Iterator[tuple[int, int]]:
    """Start and end of those whose name holds `fatbin`."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    entries = [struct.unpack_from("<IIQQQQ", data, table + index * size) for index in range(count)]
    strings = entries[names][4]
    for name, _, _, _, start, length in entries:
        text = data[strings + name : data.find(b"\0", strings + name)]
        if b"fatbin" in text.lower():
            yield start, start + length
