"""Trainings that die by SIGKILL at a given moment, each in a fork: run by test_resume_training.py, not by pytest.

Usage: kill.py FOLDER TABLE. Prints a line of JSON for each moment: the digests of what the resumed run left. Curves are
not drawn, which would take most of the time.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spai_train.fit import fit
from spai_train.pretrain import pretrain
from spai_train.training import loop as looping
from spai_train.training.loop import Loop
from spai_train.training.run import RunFolder
from tests.support.training import fit_recipe, pretrain_recipe

FILES = ("last.safetensors", "best.safetensors", "last.pth", "metrics.jsonl")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_step(number: int) -> None:
    step = Loop._step

    def then_die(self: Loop, *arguments: Any) -> float:
        waited = step(self, *arguments)
        if self.step == number:
            die()
        return waited

    Loop._step = then_die  # type: ignore[method-assign]


def die_while_writing(name: str, count: int) -> None:
    """Before the count-th file of this name gets it."""
    replace, seen = RunFolder.replace, [0]

    def cut_short(self: RunFolder, written: str, write: Callable[[Path], object]) -> Path:
        if written == name:
            seen[0] += 1
            if seen[0] == count:
                write(self.path / f"{name}.partial")
                die()
        return replace(self, written, write)

    RunFolder.replace = cut_short  # type: ignore[method-assign]


MOMENTS: dict[str, tuple[Callable[[], None], dict[str, Any]]] = {
    "never": (lambda: None, {}),
    "in the first epoch": (lambda: die_after_step(1), {}),
    "at the end of an epoch": (lambda: die_after_step(3), {}),
    "between saved steps": (lambda: die_after_step(8), {"save_every": 2}),
    "at a saved step": (lambda: die_after_step(7), {"save_every": 1}),
    "while the state is written": (lambda: die_while_writing("state.pt", 3), {}),
    "while a checkpoint is written": (lambda: die_while_writing("last.safetensors", 2), {"save_every": 2}),
    "with workers": (lambda: die_after_step(5), {"save_every": 2, "data.workers": 2}),
    "with accumulation": (lambda: die_after_step(5), {"save_every": 2, "accumulate": 2}),
    "never, with accumulation": (lambda: None, {"accumulate": 2}),
}


PRETRAINING: dict[str, tuple[Callable[[], None], dict[str, Any]]] = {
    "never, in pre-training": (lambda: None, {}),
    "in pre-training": (lambda: die_after_step(4), {}),
    "in pre-training, between saved steps": (lambda: die_after_step(5), {"save_every": 1}),
    "while a backbone is written": (lambda: die_while_writing("last.pth", 2), {}),
}


def in_a_fork(task: Callable[[], object]) -> int:
    """:returns: what the process ended with; −9 for SIGKILL"""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        task()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(path: Path) -> str:
    """Of a file's bytes; of the tensors in a pickle, whose bytes are nobody's promise."""
    if path.suffix != ".pth":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    weights = torch.load(path, weights_only=True)["model"]
    return hashlib.sha256(
        b"".join(name.encode() + part.numpy().tobytes() for name, part in weights.items())
    ).hexdigest()


def die_and_resume(arm: Callable[[], None], train: Callable[..., object], recipe: Any, output: Path) -> dict[str, Any]:
    died = in_a_fork(lambda: (arm(), train(recipe, output)))
    resumed = in_a_fork(lambda: train(recipe, output, resume=True)) if died else 0
    digests = {name: digest(output / name) for name in FILES if (output / name).exists()}
    return {"died": died, "resumed": resumed, "digests": digests}


def main(folder: Path, table: Path) -> None:
    torch.set_num_threads(1)
    looping.draw_curves = lambda path, _: path.touch()
    runs = [
        (moment, arm, fit, fit_recipe(table, **{"schedule.epochs": 3, **settings}))
        for moment, (arm, settings) in MOMENTS.items()
    ]
    runs += [(moment, arm, pretrain, pretrain_recipe(table, **more)) for moment, (arm, more) in PRETRAINING.items()]
    for number, (moment, *run) in enumerate(runs):
        ended = die_and_resume(*run, folder / f"run_{number}")
        print(json.dumps({"moment": moment, **ended}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
