"""spai-train: from folders of images to an evaluated checkpoint."""

from collections.abc import Sequence

import typer

from spai_runtime.cli.commands import COMMON_CODES, VersionOption, execute
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

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def root(version: VersionOption = False) -> None:
    """Train a detector: from folders of images to an evaluated checkpoint that spai-export takes."""


COMMANDS = (
    *(index, simulate, pack, augment, pretrain, fit, search, probe),
    *(evaluate, compare, baselines, tsne, convert, zoo),
)

for module in COMMANDS:
    app.command(module.__name__.rpartition(".")[2], epilog=f"{module.EPILOG} {COMMON_CODES}")(module.run)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    return execute(app, "spai-train", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
