"""What a search may choose from: keys of a recipe, and a range or a few values of each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from optuna.trial import Trial

from spai_runtime.errors import UserError
from spai_train.recipe import read_yaml

Scalar = bool | int | float | str | None


class SpaceError(UserError):
    """A space that cannot be searched, and why, in one sentence."""


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values from `low` to `high`, both included; they are whole numbers where both limits are.

    :param log: whether the range is searched on a logarithmic scale
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) is not below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low}")

    @property
    def ends(self) -> tuple[Scalar, ...]:
        return self.low, self.high

    def suggest(self, trial: Trial, key: str) -> Scalar:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)  # type: ignore[no-any-return]
        return trial.suggest_float(key, self.low, self.high, log=self.log)  # type: ignore[no-any-return]


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of a few values, between which nothing lies."""

    choices: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices is empty")

    @property
    def ends(self) -> tuple[Scalar, ...]:
        return self.choices

    def suggest(self, trial: Trial, key: str) -> Scalar:
        return trial.suggest_categorical(key, self.choices)  # type: ignore[no-any-return]


Space = dict[str, Range | Choice]


def load_space(path: Path) -> Space:
    """Reads YAML: `optimizer.learning_rate: {low: 1e-5, high: 1e-3, log: true}`, `batch_size: {choices: [36, 72]}`, …

    :raises SpaceError: it is unreadable or not YAML, or the values of a key are neither a range nor choices
    """
    content = read_yaml(path, SpaceError)
    if not isinstance(content, dict) or not content:
        raise SpaceError(f"{path} names no keys; e.g. optimizer.learning_rate: {{low: 1e-5, high: 1e-3, log: true}}")
    return {str(key): _dimension(path, str(key), values) for key, values in content.items()}


def extremes(space: Space) -> Iterator[dict[str, Scalar]]:
    """Overrides of one key each, to check a recipe with beforehand: the ends of every range, and every choice."""
    return ({key: value} for key, dimension in space.items() for value in dimension.ends)


def _dimension(path: Path, key: str, values: Any) -> Range | Choice:
    kind: type[Range] | type[Choice] = Choice if isinstance(values, Mapping) and "choices" in values else Range
    try:
        return msgspec.convert(values, kind, strict=False)  # YAML 1.1 reads 1e-5 as a string
    except msgspec.ValidationError as error:
        raise SpaceError(f"{path}: {key} is neither {{low, high[, log]}} nor {{choices}}: {error}") from error
