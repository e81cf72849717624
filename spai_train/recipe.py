"""The recipe of the demo detector, as its YAML file spells it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import yaml
from numpy.random import SeedSequence

from spai_runtime.errors import UserError
from spai_train.data.generators import GeneratorSpec, GeneratorTraining
from spai_train.data.simulate import Finish
from spai_train.frozen import Schedule
from spai_train.models.spai import SPAIConfig

DEMO = Path(__file__).parent / "recipes" / "demo.yaml"


class Stream(IntEnum):
    """Independent streams of a recipe's seed. A new one goes to the end, so that the others keep their numbers."""

    CROPS = 0
    GENERATORS = 1
    IMAGES = 2
    DETECTOR = 3
    BOOTSTRAP = 4
    SAMPLES = 5


class RecipeError(UserError):
    """A recipe that cannot be followed, and why, in one sentence."""


@dataclass(frozen=True)
class Count:
    """Images: for training and testing of each class (and of seen and unseen generators), the others real alone."""

    train: int
    test: int
    calibration: int
    held_out: int


@dataclass(frozen=True)
class Recipe:
    """Everything that the demo detector follows from; recipes/demo.yaml comments on each field."""

    seed: int
    seen: tuple[GeneratorSpec, ...]
    unseen: tuple[GeneratorSpec, ...]
    count: Count
    model: SPAIConfig
    generator: GeneratorTraining = field(default_factory=GeneratorTraining)
    finish: Finish = field(default_factory=Finish)
    schedule: Schedule = field(default_factory=Schedule)
    patches: int = 30_000
    tokens: int = 64
    false_positives: float = 0.05
    workers: int = 2

    def words(self, stream: Stream, *more: int) -> tuple[int, ...]:
        """The seed of a stream, for numpy's SeedSequence or default_rng."""
        return (self.seed, int(stream), *more)

    def number(self, stream: Stream) -> int:
        """The seed of a stream as one 32-bit number, for torch and scikit-learn."""
        return int(SeedSequence(self.words(stream)).generate_state(1)[0])


def load_recipe(path: Path = DEMO) -> Recipe:
    """:raises RecipeError: unreadable, not YAML, or a field that is unknown, missing or of another type"""
    try:
        content = yaml.safe_load(path.read_text())
        _refuse_unknown(content, Recipe)
        return msgspec.convert(content, Recipe)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise RecipeError(f"{path} is not a recipe: {error}") from error


def _refuse_unknown(content: Any, kind: type) -> None:
    """A field that is misspelt would be left at its default, silently."""
    if not isinstance(content, Mapping):
        return  # msgspec says what was expected
    types = get_type_hints(kind)
    for name, value in content.items():
        if name not in {field.name for field in fields(kind)}:
            raise RecipeError(f"{kind.__name__} has no field `{name}`; it has {', '.join(types)}")
        if is_dataclass(types[name]):
            _refuse_unknown(value, types[name])
