"""The search, on functions whose best value is known: what it finds, what it keeps, and how it goes on."""

import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

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
SETTINGS = SearchSettings(trials=5)


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
    study = search(SPACE, replace(SETTINGS, trials=25), tmp_path, run_bowl)
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
    assert list(seen) == [f"trial_{number:04d}" for number in range(5)]
    for row, overrides in zip(rows(tmp_path), seen.values(), strict=True):
        assert (float(row["x"]), int(row["n"]), row["kind"]) == tuple(overrides.values())
        assert (row["state"], float(row["value"])) == ("complete", bowl(overrides))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == min(seen.values(), key=bowl)


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = replace(SETTINGS, trials=12)
    search(SPACE, settings, whole, run_bowl)
    for trial in (3, 11):  # drawn at random, and by the model
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, settings, broken, stopping_at(trial, KeyboardInterrupt()))
    search(SPACE, settings, broken, run_bowl)
    assert suggestions(broken) == suggestions(whole)
    tried = rows(broken)
    assert [row["number"] for row in tried if row["state"] == "interrupted"] == ["3", "11"]
    assert {key: tried[3][key] for key in SPACE} == {key: tried[4][key] for key in SPACE}


def test_more_trials_go_on_with_a_finished_search(tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    search(SPACE, replace(SETTINGS, trials=11), whole, run_bowl)
    search(SPACE, SETTINGS, grown, run_bowl)
    search(SPACE, SETTINGS, grown, stopping_at(5, AssertionError("nothing is left to do")))
    assert len(rows(grown)) == 5
    search(SPACE, replace(SETTINGS, trials=11), grown, run_bowl)
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

    search({"x": Range(0.0, 1.0)}, replace(SETTINGS, trials=11), tmp_path, run)
    complete: list[float] = []
    for row, epochs in zip(rows(tmp_path), reported, strict=True):
        x = float(row["x"])
        prunes = len(complete) >= UNPRUNED_TRIALS and x > np.median(complete)
        assert (row["state"], float(row["value"])) == ("pruned" if prunes else "complete", x)
        assert epochs == (UNPRUNED_EPOCHS + 1 if prunes else 8)
        complete += [] if prunes else [x]
    assert len(complete) < 11


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
