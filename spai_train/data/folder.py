"""Simulated images as a folder of files and a CSV that the runtime and training read."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spai_train.data.generators import Generator
from spai_train.data.simulate import REAL, Draw, Finish, Sample, draw_all

SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Entry:
    """One image of a folder: how it is drawn, whether its JPEG is kept, and the split it belongs to."""

    draw: Draw
    as_jpeg: bool
    split: str


def write_folder(
    output: Path,
    generators: Mapping[str, Generator],
    unseen: Sequence[str],
    finish: Finish,
    count: int,
    seed: int,
    workers: int = 2,
) -> Path:
    """Writes `count` images, real and generated in turn, half of them JPEG, and `images.csv`.

    :param unseen: names of the generators that the test split alone may show
    :returns: path of the CSV, whose columns are image (relative to it), class (0 real, 1 generated) and split
    """
    (output / "images").mkdir(parents=True, exist_ok=True)
    entries = lay_out(list(generators), unseen, count, seed)
    drawn = draw_all([entry.draw for entry in entries], generators, finish, workers)
    rows = [
        _write(output, index, entry, files[entry.as_jpeg])
        for index, (entry, files) in enumerate(zip(entries, drawn, strict=True))
    ]
    path = output / "images.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "class", "split"), *rows])
    return path


def lay_out(generators: Sequence[str], unseen: Sequence[str], count: int, seed: int) -> list[Entry]:
    """Splits and formats are shuffled, the same for a real image and the generated one after it."""
    rng = np.random.default_rng(seed)
    pairs = (count + 1) // 2
    splits = rng.permutation(np.searchsorted(np.cumsum(SHARES[:-1]), (np.arange(pairs) + 0.5) / pairs))
    jpegs = rng.permutation(pairs) % 2 == 1
    seen = [name for name in generators if name not in unseen]
    entries = []
    for index in range(count):
        pair, generated = divmod(index, 2)
        split = SPLITS[splits[pair]]
        sources = list(generators) if split == "test" else seen
        source = sources[rng.integers(len(sources))] if generated else REAL
        entries.append(Entry(Draw((seed, index), source), bool(jpegs[pair]), split))
    return entries


def _write(output: Path, index: int, entry: Entry, sample: Sample) -> tuple[str, int, str]:
    """One image's file, and its row."""
    name = f"images/{index:06d}_{sample.source}{sample.suffix}"
    (output / name).write_bytes(sample.content)
    return name, int(sample.generated), entry.split
