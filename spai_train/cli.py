"""spai-train: from folders of images to an evaluated checkpoint."""

import inspect
from collections.abc import Sequence

import typer

from spai_runtime.cli.commands import COMMON_CODES, EXIT_ERROR, VersionOption, execute, show
from spai_train.commands import (
    augment,
    baselines,
    compare,
    convert,
    evaluate,
    fit,
    index,
    pack,
    pretrain,
    probe,
    search,
    simulate,
    tsne,
    zoo,
)

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: VersionOption = False) -> None:  # noqa: ARG001
    """Train a detector: from folders of images to an evaluated checkpoint that spai-export takes."""
    if context.invoked_subcommand is None:
        show(*context.get_help().splitlines())
        raise typer.Exit(EXIT_ERROR)


COMMANDS = (
    *(index, simulate, pack, augment, pretrain, fit, search, probe),
    *(evaluate, compare, baselines, tsne, convert, zoo),
)

for module in COMMANDS:
    name, summary = module.__name__.rpartition(".")[2], (inspect.getdoc(module.run) or "").partition("\n\n")[0]
    app.command(name, epilog=f"{module.EPILOG} {COMMON_CODES}", short_help=summary)(module.run)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of the command. :returns: the exit code"""
    return execute(app, "spai-train", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
