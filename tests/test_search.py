"""The search, on functions whose best value is known: what it finds, what it keeps, and how it goes on."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from spai_runtime.commands import execute
from spai_train.commands import search as command
from spai_train.data.order import PlanError
from spai_train.fit import FitRecipe
from spai_train.loop import OnEpoch, Outcome, TrainingError
from spai_train.recipe import RecipeError
from spai_train.search import (
    UNPRUNED_EPOCHS,
    UNPRUNED_TRIALS,
    Report,
    RunTrial,
    SearchError,
    SearchSettings,
    TrialError,
    best_of,
    search,
    table,
)
from spai_train.space import Choice, Range, Space

SPACE: Space = {"x": Range(-1.0, 1.0), "n": Range(1, 4), "kind": Choice(("a", "b"))}
SETTINGS = SearchSettings(trials=8)


def bowl(overrides: Mapping[str, Any]) -> float:
    """0 at x = 0.3, n = 2, kind a, and more elsewhere."""
    return float((overrides["x"] - 0.3) ** 2 + (overrides["n"] - 2) ** 2 + (overrides["kind"] == "b"))


def run_bowl(overrides: dict[str, Any], folder: Path, report: Report) -> float:  # noqa: ARG001
    return bowl(overrides)


def stopping_at(trial: int, error: BaseException) -> RunTrial:
    """run_bowl, but the trial of this number raises."""

    def run(overrides: dict[str, Any], folder: Path, report: Report) -> float:
        if folder.name == f"trial_{trial:04d}":
            raise error
        return run_bowl(overrides, folder, report)

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def suggestions(folder: Path) -> list[tuple[str, ...]]:
    """Of the trials that were not interrupted."""
    return [tuple(row[key] for key in SPACE) for row in rows(folder) if row["state"] != "interrupted"]


def test_a_search_approaches_the_best_values(tmp_path: Path) -> None:
    study = search(SPACE, replace(SETTINGS, trials=40), tmp_path, run_bowl)
    best = best_of(study)
    assert best is not None
    assert (best.params["n"], best.params["kind"]) == (2, "a")
    assert best.params["x"] == pytest.approx(0.3, abs=0.15)


def test_what_is_written_is_what_was_tried(tmp_path: Path) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def record(overrides: dict[str, Any], folder: Path, report: Report) -> float:  # noqa: ARG001
        seen[folder.name] = overrides
        return bowl(overrides)

    search(SPACE, SETTINGS, tmp_path, record)
    assert list(seen) == [f"trial_{number:04d}" for number in range(8)]
    for row, overrides in zip(rows(tmp_path), seen.values(), strict=True):
        assert (float(row["x"]), int(row["n"]), row["kind"]) == tuple(overrides.values())
        assert (row["state"], float(row["value"])) == ("complete", bowl(overrides))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == min(seen.values(), key=bowl)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("killed")])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path, error: BaseException) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = replace(SETTINGS, trials=14)
    search(SPACE, settings, whole, run_bowl)
    for trial in (3, 12):  # drawn at random, and by the model
        with pytest.raises(type(error)):
            search(SPACE, settings, broken, stopping_at(trial, error))
    search(SPACE, settings, broken, run_bowl)
    assert suggestions(broken) == suggestions(whole)
    tried = rows(broken)
    assert [row["number"] for row in tried if row["state"] == "interrupted"] == ["3", "12"]
    assert {key: tried[3][key] for key in SPACE} == {key: tried[4][key] for key in SPACE}


def test_more_trials_go_on_with_a_finished_search(tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    search(SPACE, replace(SETTINGS, trials=13), whole, run_bowl)
    search(SPACE, SETTINGS, grown, run_bowl)
    search(SPACE, SETTINGS, grown, stopping_at(8, AssertionError("nothing is left to do")))
    assert len(rows(grown)) == 8
    search(SPACE, replace(SETTINGS, trials=13), grown, run_bowl)
    assert suggestions(grown) == suggestions(whole)


def test_the_seed_decides_what_is_tried(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        search(SPACE, replace(SETTINGS, seed=seed), tmp_path / name, run_bowl)
    assert suggestions(tmp_path / "a") != suggestions(tmp_path / "b")


@pytest.mark.parametrize(
    ("ends", "said"),
    [(TrialError("out of memory"), "failed: out of memory"), (math.nan, "failed: its metric is nan")],
)
def test_a_trial_without_a_value_counts_and_is_not_the_best(
    tmp_path: Path, ends: TrialError | float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(overrides: dict[str, Any], folder: Path, report: Report) -> float:  # noqa: ARG001
        if folder.name != "trial_0002":
            return bowl(overrides) + 1
        if isinstance(ends, TrialError):
            raise ends
        return ends

    study = search(SPACE, replace(SETTINGS, trials=4), tmp_path, run)
    assert [row["state"] for row in rows(tmp_path)] == ["complete", "complete", "failed", "complete"]
    assert rows(tmp_path)[2]["value"] == ""
    best = best_of(study)
    assert best is not None
    assert best.number != 2
    assert f"trial 2 (3 of 4): {said}\n" in capsys.readouterr().err


def test_a_trial_above_the_median_is_pruned(tmp_path: Path) -> None:
    reported: list[int] = []

    def run(overrides: dict[str, Any], folder: Path, report: Report) -> float:  # noqa: ARG001
        reported.append(0)
        for epoch in range(1, 9):
            reported[-1] = epoch
            report(epoch, overrides["x"])
        return float(overrides["x"])

    search({"x": Range(0.0, 1.0)}, replace(SETTINGS, trials=16), tmp_path, run)
    complete: list[float] = []
    for row, epochs in zip(rows(tmp_path), reported, strict=True):
        x = float(row["x"])
        prunes = len(complete) >= UNPRUNED_TRIALS and x > np.median(complete)
        assert (row["state"], float(row["value"])) == ("pruned" if prunes else "complete", x)
        assert epochs == (UNPRUNED_EPOCHS + 1 if prunes else 8)
        complete += [] if prunes else [x]
    assert len(complete) < 16


def test_a_metric_that_rises_is_maximised(tmp_path: Path) -> None:
    study = search(SPACE, replace(SETTINGS, metric="val_auc"), tmp_path, run_bowl)
    best = best_of(study)
    assert best is not None
    assert best.value == max(float(row["value"]) for row in rows(tmp_path))


def test_the_table_has_the_best_first_and_failures_last(tmp_path: Path) -> None:
    study = search(SPACE, SETTINGS, tmp_path, stopping_at(0, TrialError("no")))
    title, *lines = table(study).splitlines()
    assert title.split() == ["trial", "state", "val_loss", "x", "n", "kind"]
    values = sorted((float(row["value"]), row["number"]) for row in rows(tmp_path)[1:])
    assert [line.split()[0] for line in lines] == [number for _, number in values] + ["0"]
    assert lines[-1].split()[1:3] == ["failed", "—"]
    assert len(set(map(len, [title, *lines]))) == 1


@pytest.mark.parametrize(
    ("space", "settings", "what"),
    [
        ({"x": Range(-1.0, 2.0)}, SETTINGS, "space"),
        (SPACE, replace(SETTINGS, seed=1), "seed"),
        (SPACE, replace(SETTINGS, recipe="fit: {}"), "recipe"),
    ],
)
def test_a_folder_is_for_one_search(tmp_path: Path, space: Space, settings: SearchSettings, what: str) -> None:
    search(SPACE, SETTINGS, tmp_path, run_bowl)
    with pytest.raises(SearchError, match=f"holds a search with another {what}; name another --output"):
        search(space, settings, tmp_path, run_bowl)


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database" * 100)
    with pytest.raises(SearchError, match=r"study\.db cannot be used to store a search: file is not a database"):
        search(SPACE, SETTINGS, tmp_path, run_bowl)


def test_a_trial_is_a_fit_under_what_was_given_and_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(recipe: FitRecipe, output: Path, *, on_epoch: OnEpoch) -> Outcome:
        assert output == tmp_path
        assert (recipe.seed, recipe.batch_size, recipe.optimizer.learning_rate) == (7, 36, 1e-4)
        on_epoch(1, {"val_auc": 0.75, "val_loss": 2.0})
        return Outcome(history=[], best={"val_auc": 0.875}, stopped=False)

    monkeypatch.setattr("spai_train.fit.fit", fake)
    space: Space = {"optimizer.learning_rate": Range(1e-5, 1e-3), "batch_size": Choice((36, 72))}
    given = {"seed": 7, "batch_size": 144, "stopping.metric": "val_auc"}
    run_trial, metric, recipe = command.bind("spai", given, space)
    reported: list[tuple[int, float]] = []
    value = run_trial(
        {"optimizer.learning_rate": 1e-4, "batch_size": 36}, tmp_path, lambda *epoch: reported.append(epoch)
    )
    assert (value, metric, reported) == (0.875, "val_auc", [(1, 0.75)])
    assert yaml.safe_load(recipe)["fit"]["batch_size"] == 144


@pytest.mark.parametrize("error", [TrainingError("out of memory"), PlanError("lower it")])
def test_a_fit_that_cannot_go_on_is_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fake(*_: object, **__: object) -> Outcome:
        raise error

    monkeypatch.setattr("spai_train.fit.fit", fake)
    run_trial, _, _ = command.bind("spai", {}, {})
    with pytest.raises(TrialError, match=str(error)):
        run_trial({}, tmp_path, lambda *_: None)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"optimizer.learning_rat": Range(0.1, 1.0)}, "no key `learning_rat`"),
        ({"batch_size": Choice((36, "many"))}, "Expected `int`, got `str`"),
        ({"batch_size": Range(0, 72)}, ">= 1"),
    ],
)
def test_a_space_that_the_recipe_has_no_room_for_is_refused_before_the_first_trial(space: Space, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        command.bind("spai", {}, space)


def test_where_images_are_read_from_may_change_between_runs() -> None:
    moved, changed = {"data.root": "/elsewhere", "data.workers": 0}, {"seed": 1}
    basis, same, other = (command.bind("spai", given, {})[2] for given in ({}, moved, changed))
    assert basis == same != other


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`spai-train search` over SPACE, with run_bowl or another function for a fit."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("search", epilog=command.EPILOG)(command.run)
    space = tmp_path / "space.yaml"
    space.write_text("{x: {low: -1.0, high: 1.0}, n: {low: 1, high: 4}, kind: {choices: [a, b]}}")

    def run(*arguments: object, trial: RunTrial = run_bowl) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "bind", lambda *_: (trial, "val_loss", "a recipe"))
        capsys.readouterr()
        fixed = ("search", "--space", space, "--output", tmp_path / "out")
        code = execute(app, "spai-train", [str(argument) for argument in (*fixed, *arguments)])
        return code, *capsys.readouterr()

    return run


def test_the_command_shows_the_trials_and_names_the_best(tmp_path: Path, call: Call) -> None:
    code, out, err = call("--trials", 3)
    assert code == 0
    assert err.count("\n") == 3
    *shown, last = out.splitlines()
    assert last == str(tmp_path / "out" / "best.yaml")
    assert [line.split()[1] for line in shown] == ["state", "complete", "complete", "complete"]


def test_the_command_says_when_no_trial_was_completed(call: Call) -> None:
    def fail(*_: object) -> float:
        raise TrialError("out of memory")

    code, _, err = call("--trials", 2, trial=fail)
    assert code == 2
    assert err.splitlines()[-1] == "spai-train: no trial was completed; what each failed of is said above"


def test_the_command_refuses_another_search_in_one_line(call: Call) -> None:
    assert call("--trials", 1)[0] == 0
    code, out, err = call("--trials", 1, "--seed", 5)
    assert (code, out) == (2, "")
    assert err.endswith("holds a search with another seed; name another --output\n")
    assert err.count("\n") == 1
