"""Simulated data: the section `simulate` of a recipe, and the labelled folder that follows from it and its seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spai_train.data.table import GENERATED, Row, write_table
from spai_train.data.table import REAL as REAL_CLASS
from spai_train.simulation.drawing import REAL, Draw, Finish, Sample, crop, draw_all, photograph, plan, worker_pool
from spai_train.simulation.generators import Generator, GeneratorSpec, GeneratorTraining, make_generator

Group = Literal["real", "seen", "unseen"]
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


class Stream(IntEnum):
    """Independent streams of a recipe's seed. A new one goes to the end, so that the others keep their numbers."""

    CROPS = 0
    GENERATORS = 1
    IMAGES = 2
    EXAMPLES = 5


@dataclass(frozen=True)
class Split:
    """How many scenes of each kind a split shows.

    :param real: photographed scenes
    :param seen: through the generators of `seen` in turn, `unseen` through the others
    """

    real: int = 0
    seen: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class Example:
    """One real and one generated image to look at: smallest and largest side in pixels, and whether they are JPEG."""

    sides: tuple[int, int]
    jpeg: bool = False


@dataclass(frozen=True)
class Simulation:
    """:param seen: generators that any split may show; `unseen` are for tests
    :param finish: what both classes go through on their way to a file
    :param splits: by name; every scene is written as PNG and as JPEG
    :param examples: images beside the splits
    """

    seed: int
    seen: tuple[GeneratorSpec, ...]
    splits: dict[str, Split]
    unseen: tuple[GeneratorSpec, ...] = ()
    generator: GeneratorTraining = field(default_factory=GeneratorTraining)
    finish: Finish = field(default_factory=Finish)
    examples: tuple[Example, ...] = ()
    workers: int = 2

    def words(self, stream: Stream, *more: int) -> tuple[int, ...]:
        """The seed of a stream, for numpy's SeedSequence or default_rng."""
        return (self.seed, int(stream), *more)


def simulate(simulation: Simulation, output: Path) -> Path:
    """Trains the generators, draws every image, and writes `images/`, `examples/` and tables into a folder.

    :returns: path of images.csv: image (relative to it), class, split, and source, `real` or a generator's name;
        png.csv and jpeg.csv beside it are the rows of one format
    """
    generators = train_generators(simulation)
    (output / "images").mkdir(parents=True, exist_ok=True)
    entries = list(_entries(simulation))
    drawn = draw_all([draw for _, draw in entries], generators, simulation.finish, simulation.workers)
    rows = [
        _write(output, f"images/{index:06d}_{sample.source}{sample.suffix}", split, sample)
        for index, ((split, _), samples) in enumerate(zip(entries, drawn, strict=True))
        for sample in samples
    ]
    for name, sample in draw_examples(simulation, generators).items():
        _write(output, f"examples/{name}", "example", sample)
    write_table(output / "images.csv", rows)
    for form, suffix in SUFFIXES.items():
        write_table(output / f"{form}.csv", [row for row in rows if row.path.suffix == suffix])
    return output / "images.csv"


def train_generators(simulation: Simulation) -> dict[str, Generator]:
    """All generators, by name, trained on the same photographed scenes."""
    crops = _real_crops(simulation)
    specs = (*simulation.seen, *simulation.unseen)
    seeds = np.random.SeedSequence(simulation.words(Stream.GENERATORS)).generate_state(len(specs)).tolist()
    with worker_pool(simulation.workers) as pool:
        tasks = [
            pool.submit(make_generator, spec, crops, simulation.generator, seed)
            for spec, seed in zip(specs, seeds, strict=True)
        ]
        return {spec.name: task.result() for spec, task in zip(specs, tasks, strict=True)}


def draw_examples(simulation: Simulation, generators: Mapping[str, Generator]) -> dict[str, Sample]:
    """A few images to look at, by file name, of both classes."""
    names = [spec.name for spec in (*simulation.seen, *simulation.unseen)]
    samples = {}
    for number, example in enumerate(simulation.examples):
        finish: Finish = replace(simulation.finish, sides=example.sides)
        sources = (("real", REAL), ("generated", names[number * len(names) // len(simulation.examples)]))
        for index, (label, source) in enumerate(sources):
            item = plan(simulation.words(Stream.EXAMPLES, number, index), 1, [source])
            (files,) = draw_all(item, generators, finish, workers=1)
            sample = files[example.jpeg]
            samples[f"{label}_{number + 1}{sample.suffix}"] = sample
    return samples


def _entries(simulation: Simulation) -> Iterator[tuple[str, Draw]]:
    """Every scene with its split. No two splits share a scene; the classes of a split take turns."""
    names: dict[Group, Sequence[str]] = {
        "real": [REAL],
        "seen": [spec.name for spec in simulation.seen],
        "unseen": [spec.name for spec in simulation.unseen],
    }
    for number, (split, count) in enumerate(simulation.splits.items()):
        for index, (group, sources) in enumerate(names.items()):
            for draw in plan(simulation.words(Stream.IMAGES, number, index), getattr(count, group), sources or [""]):
                yield split, draw


def _write(output: Path, name: str, split: str, sample: Sample) -> Row:
    """One image's file, and its row."""
    path = output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample.content)
    return Row(name, path, GENERATED if sample.generated else REAL_CLASS, split, sample.source)


def _real_crops(simulation: Simulation) -> NDArray[np.uint8]:
    """Crops of photographed scenes for generators to learn from: (N, S, S, 3)."""
    rng = np.random.default_rng(simulation.words(Stream.CROPS))
    size, count = simulation.generator.crop_size, simulation.generator.crops
    photographs: Sequence[NDArray[np.uint8]] = [photograph(rng, 3 * size, 3 * size) for _ in range(max(1, count // 6))]
    return np.stack([crop(photographs[index % len(photographs)], size, size, rng) for index in range(count)])
