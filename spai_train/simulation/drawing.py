"""Labelled images from a seed: real = photographed scenes, generated = other scenes through a generator.

Both classes get the same rescaling, cropping and encoding, drawn from the same distributions, so that neither
size, content, colour nor format tells them apart. An image is a function of its own seed, whatever process draws it.
"""

import io
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import PIL.Image
import torch

from spai_train.data import Image
from spai_train.simulation.camera import Camera
from spai_train.simulation.generators import GRID, Generator
from spai_train.simulation.scenes import dead_leaves

REAL = "real"
_FILTERS = (PIL.Image.Resampling.BILINEAR, PIL.Image.Resampling.BICUBIC, PIL.Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Finish:
    """What happens to an image of either class on its way to a file.

    :param sides: Sides of the final image lie between these two numbers of pixels.
    :param rescale: Images are rescaled by factors between these two.
    :param rescaled: This share of the images is rescaled at all, from 0 to 1.
    :param quality: JPEG qualities lie between these two.
    """

    sides: tuple[int, int] = (256, 512)
    rescale: tuple[float, float] = (0.75, 1.25)
    rescaled: float = 0.5
    quality: tuple[int, int] = (75, 95)

    def draw_geometry(self, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
        """Draws the final (height, width), small ones being likelier, and the factor of the rescaling (1 for none)."""
        low, high = np.log(self.sides)
        height, width = np.exp(low + (high - low) * rng.random(2) ** 1.5).astype(int).tolist()
        factor = rng.uniform(*self.rescale) if rng.random() < self.rescaled else 1.0
        return (height, width), factor


@dataclass(frozen=True)
class Draw:
    """One image to be made: everything about it follows from these three.

    :param seed: words for a numpy SeedSequence
    :param source: "real", or a generator's name
    :param jpegs: how many JPEG copies there are beside the PNG, each of another quality
    """

    seed: tuple[int, ...]
    source: str
    jpegs: int = 1


@dataclass(frozen=True)
class Sample:
    """One labelled file.

    :param content: the bytes of a PNG or a JPEG
    :param source: "real", or the generator's name
    """

    content: bytes
    source: str

    @property
    def suffix(self) -> str:
        return ".jpg" if self.content.startswith(b"\xff\xd8") else ".png"

    @property
    def generated(self) -> bool:
        return self.source != REAL

    def pixels(self) -> Image:
        """(H, W, 3) uint8 RGB"""
        return np.asarray(PIL.Image.open(io.BytesIO(self.content)).convert("RGB"))


def plan(seed: Iterable[int], count: int, sources: Sequence[str], jpegs: int = 1) -> list[Draw]:
    """Plans `count` images, which take turns among the sources and have a seed of their own each."""
    words = tuple(seed)
    return [Draw((*words, index), sources[index % len(sources)], jpegs) for index in range(count)]


def draw_all(
    draws: Sequence[Draw], generators: Mapping[str, Generator], finish: Finish, workers: int
) -> Iterator[list[Sample]]:
    """The samples of each draw, in order: the PNG, then its JPEG copies. The result does not depend on `workers`."""
    task = partial(draw, generators=generators, finish=finish)
    with worker_pool(workers) as pool:
        yield from pool.map(task, draws, chunksize=8)


def worker_pool(workers: int) -> Executor:
    """Processes of one thread each: they share the cores better than threads do, and always sum in the same order.

    :param workers: fewer than 2 for a thread of this process, which costs no start
    """
    if workers < 2:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)


def draw(item: Draw, generators: Mapping[str, Generator], finish: Finish) -> list[Sample]:
    """Draws the PNG of an image, then its JPEG copies."""
    rng = np.random.default_rng(item.seed)
    (height, width), factor = finish.draw_geometry(rng)
    image = photograph(rng, *(_source_side(side, factor) for side in (height, width)))
    if item.source != REAL:
        image = generators[item.source].generate(image, rng)
    image = crop(rescale(image, factor, rng), height, width, rng)
    low, high = finish.quality
    qualities = [int(rng.integers(low, high + 1)) for _ in range(item.jpegs)]
    return [Sample(encode(image, quality), item.source) for quality in (None, *qualities)]


def photograph(rng: np.random.Generator, height: int, width: int) -> Image:
    """A scene through a camera, both drawn: (height, width, 3) uint8."""
    scene = dead_leaves(rng, height, width)
    return Camera.draw(rng).photograph(scene, rng)


def rescale(image: Image, factor: float, rng: np.random.Generator) -> Image:
    """Resizes both sides by a factor, with one of Pillow's filters; 1 leaves the image as it is."""
    method = _FILTERS[rng.integers(len(_FILTERS))]
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = (round(width * factor), round(height * factor))
    return np.asarray(PIL.Image.fromarray(image).resize(size, method))


def crop(image: Image, height: int, width: int, rng: np.random.Generator) -> Image:
    """A window of the given size from anywhere in the image."""
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


def encode(image: Image, quality: int | None) -> bytes:
    """The file of an image: JPEG of a quality, or PNG for None."""
    buffer = io.BytesIO()
    if quality is None:
        PIL.Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    else:
        PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _source_side(side: int, factor: float) -> int:
    """A multiple of GRID from which `side` can be cropped after rescaling, at any phase of the grid."""
    return int(np.ceil((side + GRID) / factor / GRID)) * GRID


def _start_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are not loaded yet
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
