"""spai-train: simulated images, the demo detector, checkpoints from one layout to another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.commands import VerboseOption, VersionOption, execute, say
from spai_runtime.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

RecipeOption = Annotated[Path | None, typer.Option(help="YAML. Left out: the demo detector's own.")]


@app.callback()
def root(version: VersionOption = False) -> None:
    """Simulate images, train the demo detector, convert checkpoints."""


@app.command(epilog="Exit code: 0 written; 2 usage, or nothing could be written.")
def simulate(
    output: Annotated[Path, typer.Argument(help="Folder to make, with images/ and images.csv (image,class,split).")],
    count: Annotated[int, typer.Option(min=2, help="Images, half of them real.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    recipe: RecipeOption = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Write labelled images: photographed scenes, and scenes through small generators, which are trained first."""
    with _training_extra():
        from spai_train import sets  # noqa: PLC0415  --help must work without torch
        from spai_train.data.folder import write_folder  # noqa: PLC0415
        from spai_train.recipe import DEMO, load_recipe  # noqa: PLC0415
    settings = load_recipe(recipe or DEMO)
    with _writable(output):
        output.mkdir(parents=True, exist_ok=True)
        say(f"training {len(settings.seen) + len(settings.unseen)} generators, which takes some minutes")
        generators = sets.train_generators(settings)
        unseen = [spec.name for spec in settings.unseen]
        typer.echo(write_folder(output, generators, unseen, settings.finish, count, seed, settings.workers))
    return 0


@app.command(epilog="Exit code: 0 written; 2 usage, or nothing could be written.")
def demo(
    output: Annotated[Path, typer.Option(help="Folder for demo.safetensors, report.json, report.md and samples/.")],
    recipe: RecipeOption = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Train the demo detector from a seed, and measure it beside trivial baselines and a random backbone."""
    with _training_extra():
        from spai_train import demo as recipes  # noqa: PLC0415  --help must work without torch
        from spai_train import report  # noqa: PLC0415
        from spai_train.recipe import DEMO, load_recipe  # noqa: PLC0415
    settings = load_recipe(recipe or DEMO)
    with _writable(output):
        outcome = recipes.run_demo(settings, output, say)
        report.write_report(output, outcome)
    typer.echo(report.as_markdown(outcome))
    return 0


@app.command(epilog="Exit code: 0 written; 2 usage, or nothing could be written.")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Any checkpoint that spai-export takes.")],
    output: Annotated[Path, typer.Argument(help="To write: .pth is upstream's layout, .safetensors is ours.")],
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Rewrite a checkpoint, in upstream's layout (which mever-team/spai reads) or in ours."""
    with _training_extra():
        from spai_train.checkpoint import load_checkpoint, save_checkpoint, save_upstream  # noqa: PLC0415
    loaded = load_checkpoint(checkpoint)
    with _writable(output):
        if output.suffix == ".pth":
            save_upstream(output, loaded.model())
        elif output.suffix == ".safetensors":
            save_checkpoint(output, loaded.model(), loaded.card)
        else:
            raise UserError(f"cannot write {output}: name it .pth (upstream's layout) or .safetensors (ours)")
    typer.echo(output)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    return execute(app, "spai-train", arguments)


@contextmanager
def _training_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'spai-toolkit[train]'") from error


@contextmanager
def _writable(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or output}: {error.strerror}") from error
