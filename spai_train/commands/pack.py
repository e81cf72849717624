"""spai-train pack"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say, show
from spai_train.commands.edges import writable
from spai_train.data.pack import SHARD_BYTES, pack
from spai_train.data.stores import Files
from spai_train.data.table import read_tables

EPILOG = (
    "Exit code: 0 every image is packed; 3 some could not be read and are named; 2 usage, or nothing could be written. "
    "An image's key is its name in the table, so the same tables go with the store and with the files."
)


def run(
    tables: Annotated[list[Path], typer.Argument(metavar="CSV...", help="Tables as spai-train index writes them.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="What to make: data.lmdb, which mever-team/spai reads too, or a folder for tar shards.",
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(help="Folder that names are relative to. Without it, the folder of each table.")
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Size of a tar shard in megabytes.")
    ] = SHARD_BYTES >> 20,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Copy the images of tables into one LMDB file or a few tar shards, which network disks read faster than files."""
    rows = read_tables(tables, root=root)
    console, quiet = Console(stderr=True), not sys.stderr.isatty()
    shown = track(rows, "packing", console=console, transient=True, disable=quiet)
    with writable(output):
        left_out = pack(shown, Files(), output, shard_size << 20)
    for name, why in left_out.items():
        say(f"{name}: {why}")
    if left_out:
        say(f"left out because they cannot be read: {len(left_out)}")
    show(output)
    return EXIT_SOME_ERRORS if left_out else 0
