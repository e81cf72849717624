"""Hyper-parameter search: an Optuna study over keys of a recipe, which goes on where it was interrupted.

The folder of a search, which one process at a time works in:

    study.db       Optuna's storage: every trial, and what the search was asked for
    trials.csv     each trial's number, state, value and the value of every key
    best.yaml      the overrides of the best trial
    trial_0007/    whatever trial 7 leaves
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DatabaseError

from spai_runtime.cli.commands import say
from spai_runtime.errors import UserError
from spai_runtime.files.atomic import atomic_write
from spai_train.space import Scalar, Space
from spai_train.training.stopping import Metric, higher_is_better

NAME = "search"  # of the study inside study.db
UNPRUNED_TRIALS = 5  # that run to their end first, for a median that means something
UNPRUNED_EPOCHS = 5  # of each trial: during the published warm-up its metrics say little

Report = Callable[[int, float], None]
RunTrial = Callable[[dict[str, Any], Path, Report], float]


class SearchError(UserError):
    """A search that cannot be run, and why, in one sentence."""


class TrialError(Exception):
    """A trial that gave no value, e.g. since memory ran out: it is counted, and the search goes on without it."""


@dataclass(frozen=True)
class SearchSettings:
    """What is asked of a search.

    :param trials: how many in all, with those of an interrupted run; a larger number goes on with a finished search
    :param metric: trials are compared by this metric of their best epochs
    :param seed: the seed of the suggestions
    :param recipe: what all trials share, in full
    """

    trials: int
    metric: Metric = "val_loss"
    seed: int = 0
    recipe: str = ""


def search(space: Space, settings: SearchSettings, folder: Path, run_trial: RunTrial) -> optuna.Study:
    """Runs trials until there are `settings.trials` of them; those of an interrupted run count.

    The sampler of the n-th trial is seeded by n, and an interrupted trial is repeated from its start. So an interrupted
    search suggests what it would have suggested without the interruption, though its trials' numbers have gaps.

    :param run_trial: trains with the overrides into the trial's folder, reports the metric of each epoch, and
        returns that of the best. A report raises optuna.TrialPruned where the trial is not worth going on with
    :raises SearchError: `folder` holds a search for something else
    """
    study = open_study(space, settings, folder)
    _requeue(study)
    while (done := len(_finished(study))) < settings.trials:
        study.sampler = optuna.samplers.TPESampler(seed=_seed(settings.seed, done))
        trial = _attempt(study, space, folder, run_trial)
        write_results(study, folder)
        say(f"trial {trial.number} ({done + 1} of {settings.trials}): {_outcome(trial, settings.metric)}")
    write_results(study, folder)
    return study


def open_study(space: Space, settings: SearchSettings, folder: Path) -> optuna.Study:
    """Opens the study in a folder, or makes one where there is none.

    :raises SearchError: study.db cannot be used, or belongs to another search
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.db"
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=NAME,
            direction="maximize" if higher_is_better(settings.metric) else "minimize",
            pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_EPOCHS + 1),
            load_if_exists=True,
        )
    except DatabaseError as error:
        raise SearchError(f"{path} cannot be used to store a search: {error.orig}") from error
    _same_search(study, space, settings, folder)
    return study


def write_results(study: optuna.Study, folder: Path) -> None:
    """Writes trials.csv, and best.yaml once a trial is complete; each file appears when it is whole."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    keys = list(study.user_attrs["space"])
    writer.writerow(("number", "state", "value", *keys))
    for trial in study.trials:
        writer.writerow((trial.number, state_of(trial), trial.value, *(trial.params.get(key) for key in keys)))
    _write(folder / "trials.csv", lines.getvalue())
    if best := best_of(study):
        title = (
            f"# trial {best.number}: {study.user_attrs['metric']} {best.value:.6g}; each is a --set KEY=VALUE of fit\n"
        )
        _write(folder / "best.yaml", title + yaml.safe_dump(best.params, sort_keys=False))


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best value, the first of equal ones."""
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    return min(complete, key=partial(_rank, study), default=None)


def table(study: optuna.Study) -> str:
    """All trials for a terminal: the best first, then those without a value."""
    keys = list(study.user_attrs["space"])
    rows = [["trial", "state", study.user_attrs["metric"], *keys]]
    for trial in sorted(study.trials, key=partial(_rank, study)):
        cells = (trial.value, *(trial.params.get(key) for key in keys))
        rows.append([str(trial.number), state_of(trial), *map(_cell, cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def state_of(trial: FrozenTrial) -> str:
    """`complete`, `pruned`, `failed`, `interrupted`, or what Optuna calls a trial that is still to run."""
    if trial.state is TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "interrupted"
    return str(trial.state.name.lower())


def _same_search(study: optuna.Study, space: Space, settings: SearchSettings, folder: Path) -> None:
    """Refuses the study of another search, whose trials cannot be compared with those of this one."""
    asked = {"space": space, "metric": settings.metric, "seed": settings.seed, "recipe": settings.recipe}
    for name, value in msgspec.json.decode(msgspec.json.encode(asked)).items():
        if study.user_attrs.get(name, value) != value:
            raise SearchError(f"{folder} holds a search with another {name}; name another --output")
        study.set_user_attr(name, value)


def _requeue(study: optuna.Study) -> None:
    """Marks trials that a killed process left running as failed, and queues their values to be tried first."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if state_of(trial) in ("complete", "pruned", "failed")]


def _attempt(study: optuna.Study, space: Space, folder: Path, run_trial: RunTrial) -> FrozenTrial:
    trial = study.ask()
    overrides = {key: dimension.suggest(trial, key) for key, dimension in space.items()}
    try:
        value = run_trial(overrides, folder / f"trial_{trial.number:04d}", partial(_report, trial))
        if not math.isfinite(value):
            raise TrialError(f"its metric is {value}")
    except optuna.TrialPruned:
        return study.tell(trial, state=TrialState.PRUNED)
    except TrialError as error:
        trial.set_user_attr("error", str(error))
        return study.tell(trial, state=TrialState.FAIL)
    return study.tell(trial, value)


def _report(trial: Trial, epoch: int, value: float) -> None:
    trial.report(value, epoch)
    if trial.should_prune():
        raise optuna.TrialPruned


def _seed(seed: int, trial: int) -> int:
    return int(np.random.SeedSequence((seed, trial)).generate_state(1)[0])


def _rank(study: optuna.Study, trial: FrozenTrial) -> tuple[bool, float]:
    """A key that sorts complete trials first, and the best values first; a pruned one has its last epoch's value."""
    sign = -1 if study.direction is optuna.study.StudyDirection.MAXIMIZE else 1
    value = math.inf if trial.value is None else sign * trial.value
    return trial.state is not TrialState.COMPLETE, value


def _outcome(trial: FrozenTrial, metric: Metric) -> str:
    if error := trial.user_attrs.get("error"):
        return f"failed: {error}"
    return f"{state_of(trial)}, {metric} {_cell(trial.value)}"


def _cell(value: Scalar) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
