"""spai-train search: how a trial is bound to a fit, and what the command shows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from spai_runtime.cli.commands import execute
from spai_runtime.errors import UserError
from spai_train.commands import search as command
from spai_train.data.order import PlanError
from spai_train.fit import FitRecipe
from spai_train.search import Report, RunTrial, TrialError
from spai_train.space import Choice, Range, Space
from spai_train.training.failures import TrainingError
from spai_train.training.task import OnEpoch, Outcome


def run_bowl(overrides: dict[str, float], folder: Path, report: Report) -> float:  # noqa: ARG001
    return (overrides["x"] - 0.3) ** 2


def test_a_trial_is_a_fit_under_what_was_given_and_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(recipe: FitRecipe, output: Path, *, on_epoch: OnEpoch, **_: object) -> Outcome:
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
        ({"model.heads": Choice((12, 7))}, "heads 7 does not divide width 768"),
        ({"stage": Choice(("semantic",))}, "there is no stage semantic"),
    ],
)
def test_a_space_that_the_recipe_has_no_room_for_is_refused_before_the_first_trial(space: Space, said: str) -> None:
    with pytest.raises(UserError, match=said):
        command.bind("spai", {}, space)


def test_where_images_are_read_from_may_change_between_runs() -> None:
    moved, changed = {"data.root": "/elsewhere", "data.workers": 0}, {"seed": 1}
    basis, same, other = (command.bind("spai", given, {})[2] for given in ({}, moved, changed))
    assert basis == same != other


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`spai-train search` with a function for a fit."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("search", epilog=command.EPILOG)(command.run)
    space = tmp_path / "space.yaml"
    space.write_text("x: {low: -1.0, high: 1.0}")

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
