"""spai-train simulate"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption, say, show
from spai_train.commands.edges import EPILOG, extra, writable
from spai_train.commands.training import SeedOption, SetOption, overrides

__all__ = ["EPILOG", "run"]


def run(
    output: Annotated[
        Path, typer.Argument(help="Folder to make, with images/ and images.csv (image,class,split,source).")
    ],
    recipe: Annotated[
        str, typer.Option(help="A YAML file with a section `simulate`, or a recipe that ships: demo or small.")
    ] = "demo",
    seed: SeedOption = None,
    assignments: SetOption = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Write labelled images: photographed scenes, and scenes through small generators, which are trained first."""
    with extra():
        from spai_train.recipe import load_recipe  # noqa: PLC0415  --help must work without torch
        from spai_train.simulation.folder import Simulation, simulate  # noqa: PLC0415
    simulation = load_recipe(recipe, "simulate", Simulation, overrides(assignments, seed=seed))
    with writable(output):
        output.mkdir(parents=True, exist_ok=True)
        say(f"training {len(simulation.seen) + len(simulation.unseen)} generators, then drawing images: some minutes")
        table = simulate(simulation, output)
    show(table)
    return 0
