"""A run's folder: the resolved recipe, a log, metrics, curves, and the state that `--resume` goes on from.

recipe.yaml     every key of the recipe, as it was followed, and the learning rates that follow from them
log.txt         what was said, with times
metrics.jsonl   one line an epoch; two runs of a recipe write the same
curves.png      the same, drawn
state.pt        weights, optimizer and step: everything that a resumed run needs
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from spai_runtime.cli.commands import say
from spai_runtime.errors import OutputError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.sources import printable
from spai_train.recipe import differing_keys, dump_recipe, load_recipe
from spai_train.sections import RecipeError
from spai_train.tensors import CheckpointError, load_pickle
from spai_train.training.settings import RESUMABLE, TrainingSettings

Settings = TypeVar("Settings", bound=TrainingSettings)

_BEFORE = {"schedule.base_batch_size": None}  # what runs did whose recipe was written before there was the key
Metrics = dict[str, float]


def damaged(path: Path) -> CheckpointError:
    """The error for a file that is no state from which a run of this recipe can go on."""
    return CheckpointError(f"{path} is damaged: delete it to begin anew, or name another --output")


@dataclass(frozen=True)
class State:
    """The state of a training between two steps.

    :param step: how many optimizer steps are done
    :param totals: the state of the current epoch's `Meters`
    :param history: the metrics of the epochs that are done
    :param stopping: the state of the early stopping, and whether it has `stopped` the training
    """

    step: int
    totals: dict[str, Any]
    history: list[Metrics]
    stopping: dict[str, Any]
    stopped: bool


class RunFolder:
    """:param path: the folder, which is made if it is missing
    :param writes: False in all processes but the first, which then write nothing
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._skipped: set[str] = set()

    def check(self, section: str, settings: TrainingSettings, *, resume: bool) -> None:
        """:raises OutputError: it holds a run already, which shall not be resumed
        :raises RecipeError: it holds a run of other settings
        """
        if not self.writes or not (self.path / "recipe.yaml").is_file():
            return
        if not resume:
            raise OutputError(f"{self.path} holds a run: --resume goes on with it, or name another --output")
        if before := self.begun_with(section, settings):
            self._compare(before, settings)

    def begun_with(self, section: str, settings: Settings) -> Settings | None:
        """The settings of the run that the folder holds; None where it holds none.

        :raises RecipeError: its recipe cannot be read
        """
        recipe = self.path / "recipe.yaml"
        return load_recipe(recipe, section, type(settings), defaults=_BEFORE) if recipe.is_file() else None

    def begin(self, section: str, settings: TrainingSettings) -> None:
        """Takes the folder for a run of these settings; call it after all checks that can be made before."""
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
        content = f"# {settings.rates}\n{dump_recipe(section, settings)}"
        self.replace("recipe.yaml", lambda path: path.write_text(content, encoding="utf-8"))

    def restore(self) -> tuple[State, dict[str, Any]] | None:
        """The state that was saved last and its tensors; None before the first one.

        :raises CheckpointError: the state is damaged, or asks for code
        """
        path = self.path / "state.pt"
        if not path.is_file():
            self._rewrite_metrics([])
            return None
        content = load_pickle(path)
        try:
            state = State(**content["state"])
            self._rewrite_metrics(state.history)
        except (KeyError, TypeError) as error:
            raise damaged(path) from error
        return state, {name: value for name, value in content.items() if name != "state"}

    def save_state(self, state: State, tensors: Mapping[str, Any]) -> None:
        """Replaces state.pt in one step: a process that is killed here leaves the state before."""
        self.replace("state.pt", lambda path: torch.save({"state": vars(state), **tensors}, path))

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Adds a line to metrics.jsonl."""
        if self.writes:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")

    def log(self, message: str) -> None:
        """Writes one line to log.txt and to stderr."""
        if self.writes:
            line = " ".join(printable(message).split("\n"))
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            say(line)

    def log_skipped(self, unreadable: Mapping[str, str]) -> None:
        """Names images that could not be read, each once.

        :param unreadable: name → why
        """
        for name in sorted(unreadable.keys() - self._skipped):
            self.log(f"skipped {name}: {unreadable[name]}")
        self._skipped |= unreadable.keys()

    def replace(self, name: str, write: Callable[[Path], object]) -> Path:
        """Writes a file, which appears under its name when it is whole and on the disk."""
        path = self.path / name
        if self.writes:
            with atomic_write(path, sync=True) as part:
                write(part)
        return path

    def _rewrite_metrics(self, history: Sequence[Metrics]) -> None:
        """Rewrites metrics.jsonl without the epochs after the saved state, which will come again."""
        lines = "".join(json.dumps(metrics) + "\n" for metrics in history)
        self.replace("metrics.jsonl", lambda path: path.write_text(lines, encoding="utf-8"))

    def _compare(self, before: Settings, now: Settings) -> None:
        changed = [key for key in differing_keys(before, now) if key not in RESUMABLE]
        if changed:
            raise RecipeError(
                f"{self.path} was run with another {', '.join(changed)}: resume with the same, or name another --output"
            )
