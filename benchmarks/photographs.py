"""JPEGs that cost what photographs cost to decode: shapes of many sizes under noise, quality 90."""

from pathlib import Path

import numpy as np
from PIL import Image

OCTAVES = (12, 48, 192)  # shapes along a side; each octave has half the contrast of the one before
NOISE = 7.0  # standard deviation of the luminance, in grey levels


def write_photographs(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """:param width, height: in pixels
    :returns: the files, of 2.6 to 3 bits per pixel
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    paths = [folder / f"{index:03d}.jpg" for index in range(count)]
    for path in paths:
        pixels = random.normal(0, NOISE, (height, width, 1)).astype(np.float32).repeat(3, axis=2)
        for octave, shapes in enumerate(OCTAVES):
            coarse = Image.fromarray(random.integers(0, 256, (shapes, shapes, 3), dtype=np.uint8))
            pixels += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / np.float32(2 << octave)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths
