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
Format = Literal["png", "jpeg"]
SUFFIXES: dict[Format, str] = {"png": ".png", "jpeg": ".jpg"}


class Stream(IntEnum):
    """Independent streams of a recipe's seed. A new one goes to the end, so that the others keep their numbers."""

    CROPS = 0
    GENERATORS = 1
    IMAGES = 2
    EXAMPLES = 5


@dataclass(frozen=True)
class Split:
    """How many scenes of each kind a split shows.

    :param real: So many scenes are photographed.
    :param seen: So many scenes go through the generators of `seen`, in turn.
    :param unseen: So many scenes go through the generators of `unseen`, in turn.
    """

    real: int = 0
    seen: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class Example:
    """One real and one generated image to look at.

    :param sides: Sides of the images lie between these two numbers of pixels.
    :param jpeg: The images are JPEGs if this is true, and PNGs otherwise.
    """

    sides: tuple[int, int]
    jpeg: bool = False


@dataclass(frozen=True)
class Simulation:
    """The section `simulate` of a recipe.

    :param seed: Everything that is drawn follows from this seed.
    :param splits: These are the splits, each with its numbers of scenes.
    :param seen: Any split may show images of these generators.
    :param unseen: These generators are for tests, so that training never sees them.
    :param generator: This is how the generators are trained.
    :param finish: This is what images of both classes go through on their way to a file.
    :param examples: These images are written beside the splits, to look at.
    :param formats: Every scene is written in each of these formats.
    :param workers: So many processes draw the images.
    """

    seed: int
    seen: tuple[GeneratorSpec, ...]
    splits: dict[str, Split]
    unseen: tuple[GeneratorSpec, ...] = ()
    generator: GeneratorTraining = field(default_factory=GeneratorTraining)
    finish: Finish = field(default_factory=Finish)
    examples: tuple[Example, ...] = ()
    formats: tuple[Format, ...] = ("png", "jpeg")
    workers: int = 2

    def words(self, stream: Stream, *more: int) -> tuple[int, ...]:
        """The seed of a stream, for numpy's SeedSequence or default_rng."""
        return (self.seed, int(stream), *more)


def simulate(simulation: Simulation, output: Path) -> Path:
    """Trains the generators, draws every image, and writes `images/`, `examples/` and tables into a folder.

    :returns: path of images.csv: image (relative to it), class, split, and source, `real` or a generator's name;
        png.csv and jpeg.csv beside it are the rows of one format, of those that are written
    """
    generators = train_generators(simulation)
    (output / "images").mkdir(parents=True, exist_ok=True)
    entries = list(_entries(simulation))
    drawn = draw_all([draw for _, draw in entries], generators, simulation.finish, simulation.workers)
    forms = {form: SUFFIXES[form] for form in simulation.formats}
    rows = [
        _write(output, f"images/{index:06d}_{sample.source}{sample.suffix}", split, sample)
        for index, ((split, _), samples) in enumerate(zip(entries, drawn, strict=True))
        for sample in samples
        if sample.suffix in forms.values()
    ]
    for name, sample in draw_examples(simulation, generators).items():
        _write(output, f"examples/{name}", "example", sample)
    write_table(output / "images.csv", rows)
    for form, suffix in forms.items():
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
    """All scenes with their splits. No two splits share a scene; the classes of a split take turns."""
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
