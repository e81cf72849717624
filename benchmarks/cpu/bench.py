"""What every part of a measurement is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from goals import Row
from photographs import write_photographs

from cpu.contender import Contender
from cpu.exports import Exports
from cpu.results import Results
from cpu.settings import Settings

LONGER = 5  # times the seconds of a turn of the encoder, for what takes whole images
SIZES = ((448, 448), (640, 480), (480, 640), (600, 600))  # width and height in pixels: 4 tiles each
FILES = 200
MEGAPIXEL = (1152, 864)  # 15 tiles

Rows = Sequence[tuple[Row, Contender]]  # those of the contenders that the machine can have


@dataclass(frozen=True)
class Bench:
    """:param folder: for images"""

    settings: Settings
    results: Results
    exports: Exports
    folder: Path

    @property
    def seconds(self) -> float:
        """Of what takes whole images."""
        return LONGER * self.settings.seconds

    @cached_property
    def photographs(self) -> list[Path]:
        """JPEGs of 4 tiles; their sizes take turns."""
        groups = [self._written(*size, FILES // len(SIZES)) for size in SIZES]
        return list(chain.from_iterable(zip(*groups, strict=True)))

    @cached_property
    def megapixel(self) -> Path:
        """A JPEG of 15 tiles."""
        return self._written(*MEGAPIXEL, 1)[0]

    def _written(self, width: int, height: int, count: int) -> list[Path]:
        return write_photographs(self.folder / f"{width}x{height}", width, height, count)
