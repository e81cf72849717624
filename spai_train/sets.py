"""The generators and the images of the demo detector's recipe, each part from a stream of its seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spai_train.data.generators import Generator, make_generator
from spai_train.data.simulate import REAL, Finish, Sample, crop, draw_all, photograph, plan, worker_pool
from spai_train.recipe import Recipe, Stream

FORMATS = ("PNG", "JPEG")
GROUPS = ("seen", "unseen")

# The sides of the sample images, and whether they are JPEG.
SAMPLES = (((224, 256), False), ((288, 320), False), ((400, 512), True), ((560, 640), True))


@dataclass(frozen=True)
class ImageSets:
    """The files of each part of the recipe.

    :param train: of both classes, the PNG and the JPEG of an image one after the other
    :param test: by (group, format), group "real", "seen" or "unseen"
    :param calibration: real, by format; so is `held_out`
    """

    train: list[Sample]
    test: dict[tuple[str, str], list[Sample]]
    calibration: dict[str, list[Sample]]
    held_out: dict[str, list[Sample]]


def train_generators(recipe: Recipe) -> dict[str, Generator]:
    """All generators, by name, trained on the same photographed scenes."""
    crops = _real_crops(recipe)
    specs = (*recipe.seen, *recipe.unseen)
    seeds = np.random.SeedSequence(recipe.words(Stream.GENERATORS)).generate_state(len(specs)).tolist()
    with worker_pool(recipe.workers) as pool:
        tasks = [
            pool.submit(make_generator, spec, crops, recipe.generator, seed)
            for spec, seed in zip(specs, seeds, strict=True)
        ]
        return {spec.name: task.result() for spec, task in zip(specs, tasks, strict=True)}


def draw_sets(recipe: Recipe, generators: Mapping[str, Generator]) -> ImageSets:
    """Every image of the recipe; no two sets share a scene."""
    files = _draw_parts(recipe, generators)
    return ImageSets(
        train=[sample for image in files["train"] for sample in image],
        test={
            (group, form): samples for group in ("real", *GROUPS) for form, samples in _by_format(files[group]).items()
        },
        calibration=_by_format(files["calibration"]),
        held_out=_by_format(files["held_out"]),
    )


def draw_samples(recipe: Recipe, generators: Mapping[str, Generator]) -> dict[str, Sample]:
    """A few images to look at, by file name, of both classes and both formats."""
    names = [spec.name for spec in (*recipe.seen, *recipe.unseen)]
    samples = {}
    for number, (sides, as_jpeg) in enumerate(SAMPLES):
        finish: Finish = replace(recipe.finish, sides=sides)
        sources = (("real", REAL), ("generated", names[number * len(names) // len(SAMPLES)]))
        for index, (label, source) in enumerate(sources):
            item = plan(recipe.words(Stream.SAMPLES, number, index), 1, [source])
            (files,) = draw_all(item, generators, finish, workers=1)
            sample = files[as_jpeg]
            samples[f"{label}_{number + 1}{sample.suffix}"] = sample
    return samples


def write_samples(folder: Path, samples: Mapping[str, Sample]) -> None:
    """One file a sample, under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sample in samples.items():
        (folder / name).write_bytes(sample.content)


def _by_format(images: Sequence[Sequence[Sample]]) -> dict[str, list[Sample]]:
    """[PNG, JPEG] of each image → the images of each format."""
    return {form: [image[index] for image in images] for index, form in enumerate(FORMATS)}


def _draw_parts(recipe: Recipe, generators: Mapping[str, Generator]) -> dict[str, list[list[Sample]]]:
    """By part, the PNG and the JPEG of each image."""
    seen, unseen = ([spec.name for spec in specs] for specs in (recipe.seen, recipe.unseen))
    alternating = [name for generator in seen for name in (REAL, generator)]
    count = recipe.count
    sizes = {
        "train": (2 * count.train, alternating),
        "real": (count.test, [REAL]),
        "seen": (count.test, seen),
        "unseen": (count.test, unseen),
        "calibration": (count.calibration, [REAL]),
        "held_out": (count.held_out, [REAL]),
    }
    parts = {
        name: plan(recipe.words(Stream.IMAGES, index), size, sources)
        for index, (name, (size, sources)) in enumerate(sizes.items())
    }
    draws = [item for part in parts.values() for item in part]
    drawn = draw_all(draws, generators, recipe.finish, recipe.workers)
    return {name: [next(drawn) for _ in part] for name, part in parts.items()}


def _real_crops(recipe: Recipe) -> NDArray[np.uint8]:
    """Crops of photographed scenes for generators to learn from: (N, S, S, 3)."""
    rng = np.random.default_rng(recipe.words(Stream.CROPS))
    size, count = recipe.generator.crop_size, recipe.generator.crops
    photographs: Sequence[NDArray[np.uint8]] = [photograph(rng, 3 * size, 3 * size) for _ in range(max(1, count // 6))]
    return np.stack([crop(photographs[index % len(photographs)], size, size, rng) for index in range(count)])
