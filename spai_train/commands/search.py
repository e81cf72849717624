"""spai-train search"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spai_runtime.cli.commands import VerboseOption, show
from spai_runtime.errors import UserError
from spai_train.commands.edges import extra, writable
from spai_train.commands.training import DataOption, DeviceOption, EpochsOption, RecipeOption, SetOption, overrides

if TYPE_CHECKING:
    from spai_train.search import Report, RunTrial
    from spai_train.space import Space
    from spai_train.training.stopping import Metric

EPILOG = (
    "The space is YAML: `optimizer.learning_rate: {low: 1e-5, high: 1e-3, log: true}`, `batch_size: {choices: "
    "[36, 72]}`. The same command goes on with a search that was interrupted. "
    "Exit code: 0 searched; 2 usage, or nothing could be searched."
)


def run(
    space: Annotated[Path, typer.Option(help="YAML file with keys of the recipe, and the values to search among.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for study.db, trials.csv, best.yaml and the run of each trial."),
    ],
    recipe: RecipeOption = "spai",
    trials: Annotated[
        int, typer.Option(min=1, help="How many trials to make in all, with those of an interrupted search.")
    ] = 20,
    metric: Annotated[
        str | None, typer.Option(help="What is improved: val_loss, val_auc, val_ap or val_accuracy [stopping.metric].")
    ] = None,
    data: DataOption = None,
    epochs: EpochsOption = None,
    device: DeviceOption = None,
    assignments: SetOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the values that are tried.")] = 0,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Search for the keys of a recipe that train the best detector; each trial is a fit."""
    with extra():
        from spai_train import search  # noqa: PLC0415  --help must work without torch
        from spai_train.space import load_space  # noqa: PLC0415
    given = overrides(assignments, data=data, epochs=epochs, device=device)
    if metric is not None:
        given["stopping.metric"] = metric
    dimensions = load_space(space)
    run_trial, compared, full = bind(recipe, given, dimensions)
    with writable(output):
        study = search.search(dimensions, search.SearchSettings(trials, compared, seed, full), output, run_trial)
    show(*search.table(study).splitlines())
    if search.best_of(study) is None:
        raise UserError("no trial was completed; what each failed of is said above")
    show(output / "best.yaml")
    return 0


def bind(recipe: str, given: Mapping[str, Any], space: "Space") -> "tuple[RunTrial, Metric, str]":
    """Makes the function that runs a trial: a fit by the recipe, changed by what was given and by what is suggested.

    :returns: the function, the metric that trials are compared by, and the recipe in full, but for what moves no weight
    :raises RecipeError: the recipe has no room for a key or a value of `given` or of the space
    """
    with extra():
        from spai_train.adopted import Adopted, load_fit  # noqa: PLC0415
        from spai_train.data.order import PlanError  # noqa: PLC0415
        from spai_train.fit import check, fit  # noqa: PLC0415
        from spai_train.recipe import dump_recipe  # noqa: PLC0415
        from spai_train.search import TrialError  # noqa: PLC0415
        from spai_train.space import extremes  # noqa: PLC0415
        from spai_train.training.failures import TrainingError  # noqa: PLC0415
        from spai_train.training.settings import RESUMABLE  # noqa: PLC0415

    def settings(overrides: Mapping[str, Any]) -> Adopted:
        found = load_fit(recipe, overrides)
        check(found.recipe)
        return found

    metric = settings(given).recipe.stopping.metric
    for override in extremes(space):
        settings({**given, **override})

    def run_trial(suggested: dict[str, Any], folder: Path, report: "Report") -> float:
        adopted = settings({**given, **suggested})
        try:
            outcome = fit(
                adopted.recipe,
                folder,
                chosen=adopted.chosen,
                notes=adopted.notes,
                on_epoch=lambda epoch, metrics: report(epoch, metrics[metric]),
            )
        except (TrainingError, PlanError) as error:
            raise TrialError(str(error)) from error
        return outcome.best[metric]

    shared = {key: value for key, value in given.items() if key not in RESUMABLE}
    return run_trial, metric, dump_recipe("fit", settings(shared).recipe)
