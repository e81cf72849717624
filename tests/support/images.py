"""Images that tests draw: plain ones, files that are wrong, and files that are unusual."""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Write = Callable[..., Path]


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: noise on a ramp, so that no two places look alike."""
    noise = np.random.default_rng(seed).integers(0, 128, (height, width, 3))
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 128
    return (noise + ramp[:, :, None]).astype(np.uint8)


def png(width: int, height: int, bits: int = 8, data: bytes = b"") -> bytes:
    """A PNG of RGB pixels, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def write_bad_images(folder: Path) -> dict[str, str]:
    """Files that no detector can score → what their error says."""
    sample = folder / "sample.jpeg"
    Image.fromarray(pixels(64, 64)).save(sample)
    content = sample.read_bytes()
    sample.unlink()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image\n" * 100)
    (folder / "header_only.png").write_bytes(png(40, 40)[:33])
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "broken_link.jpg").symlink_to("nowhere.jpg")
    (folder / "link_loop.jpg").symlink_to("link_loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(folder / "float.tif")
    Image.new("LAB", (40, 40)).save(folder / "lab.tif")
    (folder / "unreadable.jpg").write_bytes(content)
    (folder / "unreadable.jpg").chmod(0)
    return {
        "truncated.jpg": "truncated",
        "empty.jpg": "the file is empty",
        "text.jpg": "not an image",
        "header_only.png": "not an image",
        "bomb.png": "3600000000 pixels",
        "broken_link.jpg": "No such file",
        "link_loop.jpg": "Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
        "float.tif": "pixels of mode F have no defined 8-bit range",
        "lab.tif": "pixels of mode LAB have no defined 8-bit range",
        "unreadable.jpg": "Permission denied",
    }


def write_odd_images(folder: Path) -> Sequence[str]:
    """Files that are unusual and must be scored → their names."""
    rgb = Image.fromarray(pixels(40, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated
    rgb.save(folder / "rotated.jpg", exif=exif)
    Image.fromarray(pixels(1, 1)).save(folder / "1x1.png")
    Image.fromarray(pixels(1, 3000)).save(folder / "1x3000.png")
    Image.fromarray(pixels(3000, 1)).save(folder / "3000x1.png")
    Image.fromarray(pixels(40, 50)[:, :, 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    rgb.quantize(16).save(folder / "palette.png", transparency=bytes(range(16)))
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("LA").save(folder / "la.png")
    rgb.save(folder / "animated.gif", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    rgb.save(folder / "comma, and\nnewline.png")
    rgb.save(folder / "latin.png")
    os.rename(folder / "latin.png", os.fsencode(folder) + b"/latin-\xe9.png")  # noqa: PTH104  a name in bytes
    fixed = {path.name for path in folder.iterdir()}
    return sorted(fixed)
