"""spai-train simulate"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.commands import VerboseOption, say
from spai_train.commands.edges import EPILOG, extra, writable

__all__ = ["EPILOG", "run"]


def run(
    output: Annotated[Path, typer.Argument(help="Folder to make, with images/ and images.csv (image,class,split).")],
    count: Annotated[int, typer.Option(min=2, help="Images, half of them real.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="YAML. Left out: the demo detector's own.")] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Write labelled images: photographed scenes, and scenes through small generators, which are trained first."""
    with extra():
        from spai_train import sets  # noqa: PLC0415  --help must work without torch
        from spai_train.data.folder import write_folder  # noqa: PLC0415
        from spai_train.recipe import DEMO, load_recipe  # noqa: PLC0415
    settings = load_recipe(recipe or DEMO)
    with writable(output):
        output.mkdir(parents=True, exist_ok=True)
        say(f"training {len(settings.seen) + len(settings.unseen)} generators, which takes some minutes")
        generators = sets.train_generators(settings)
        unseen = [spec.name for spec in settings.unseen]
        typer.echo(write_folder(output, generators, unseen, settings.finish, count, seed, settings.workers))
    return 0
