"""Images that the demo detector is asked about: photographs cut to pieces, and scenes of its own test set."""

import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from spai_train.data.table import GENERATED, read_table
from spai_train.recipe import load_recipe
from spai_train.simulation import camera, drawing, folder, generators, scenes, textures
from spai_train.simulation.folder import Simulation, Split, simulate

PIECES = 25  # of photographs, and as many simulated images
SIDES = (256, 420)  # pixels of a piece: from the least side that the demo detector knows to nearly that of a photograph
TEST, CALIBRATION = "test", "val"  # splits of the recipe
CALIBRATED = 16  # scenes of each class
SOURCES = (camera, drawing, folder, generators, scenes, textures)


@dataclass(frozen=True)
class Labelled:
    """Simulated images in one format."""

    real: Sequence[Path]
    generated: Sequence[Path]


@dataclass(frozen=True)
class Images:
    """:param looked_at: of which the largest difference of scores is taken
    :param labelled: by format, of which AUCs are taken
    """

    looked_at: Sequence[Path]
    labelled: dict[str, Labelled]

    @property
    def all(self) -> list[Path]:
        """Each once."""
        sets = [path for one in self.labelled.values() for path in (*one.real, *one.generated)]
        return list(dict.fromkeys((*self.looked_at, *sets)))


def gathered(pieces: Path, simulated: Path) -> Images:
    """:param pieces: folder to write those of photographs to
    :param simulated: as `demo_scenes` gives it
    """
    labelled = {form: _labelled(simulated / f"{form}.csv") for form in ("png", "jpeg")}
    found = [path for one in labelled.values() for pair in zip(one.real, one.generated, strict=False) for path in pair]
    spread = np.linspace(0, len(found) - 1, min(PIECES, len(found))).astype(int)
    return Images([*cut(pieces, PIECES), *(found[index] for index in spread)], labelled)


def cut(directory: Path, count: int) -> list[Path]:
    """Pieces of the two photographs that scikit-learn brings, PNG and JPEG in turn, always the same."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    photographs = load_sample_images().images  # (427, 640, 3) uint8
    paths = [directory / f"{index:02d}.{('png', 'jpg')[index % 2]}" for index in range(count)]
    for index, path in enumerate(paths):
        photograph = photographs[index // 2 % len(photographs)]
        (height, width), quality = random.integers(*SIDES, 2), int(random.integers(75, 96))
        top, left = random.integers(photograph.shape[0] - height), random.integers(photograph.shape[1] - width)
        Image.fromarray(photograph[top : top + height, left : left + width]).save(path, quality=quality)
    return paths


def demo_scenes(scenes: int, recipe: Simulation | None = None) -> Path:
    """The first scenes of the demo detector's test set, half of them real, and some of its val; made once, in a minute.

    :param recipe: None is the demo detector's
    :returns: a folder with png.csv and jpeg.csv
    """
    simulation = _first(recipe or load_recipe("demo", "simulate", Simulation, ()), scenes)
    directory = Path(tempfile.gettempdir()) / "spai-benchmarks" / f"simulated-{_digest(simulation)}"
    if not directory.is_dir():
        draft = directory.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        simulate(simulation, draft)
        draft.rename(directory)
    return directory


def calibration(simulated: Path) -> list[Path]:
    """What int8 is calibrated on: scenes that nobody is asked about."""
    return [row.path for row in read_table(simulated / "images.csv", CALIBRATION)]


def _first(simulation: Simulation, scenes: int) -> Simulation:
    """A scene's seed is made of the place of its split, which is why the other splits stay, with nothing in them."""
    splits = dict.fromkeys(simulation.splits, Split())
    splits |= {TEST: Split(scenes // 2, scenes // 4, scenes // 4), CALIBRATION: Split(CALIBRATED, CALIBRATED)}
    return replace(simulation, examples=(), splits=splits)


def _labelled(table: Path) -> Labelled:
    rows = read_table(table, TEST)
    generated = [row.path for row in rows if row.label == GENERATED]
    return Labelled([row.path for row in rows if row.label != GENERATED], generated)


def _digest(simulation: Simulation) -> str:
    sources = "".join(inspect.getsource(module) for module in SOURCES)
    return hashlib.sha256(f"{sources}{simulation}".encode()).hexdigest()[:12]
