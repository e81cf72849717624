"""Errors at the edge of every command: a missing extra and an unwritable output become one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.errors import UserError
from spai_runtime.install import install
from spai_train.detectors import DETECTORS

EPILOG = "Exit code: 0 written; 2 usage, or nothing could be written."


DetectorOption = Annotated[
    str | None,
    typer.Option(
        help=f"Refuse a checkpoint of any other detector: {', '.join(DETECTORS)}. Without it, the checkpoint tells."
    ),
]

TowerOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File of the backbone, for checkpoints that leave it out (RINE, ClipDet, CO-SPY): CLIP or SigLIP as its "
        "authors publish it. Without it, the published file is looked for beside the checkpoint.",
    ),
]

# Of commands that run a detector on the images of tables, without a recipe.
ImageStoreOption = Annotated[
    Path | None, typer.Option(help="Where the images are packed: a .lmdb, a .tar, or a folder of .tar.")
]
TorchDeviceOption = Annotated[str, typer.Option("--device", "-d", help="Where to run: auto, cpu, or cuda:0.")]
ViewBatchOption = Annotated[int | None, typer.Option(min=1, help="How many views the encoder gets at once.")]
DecodersOption = Annotated[int | None, typer.Option(min=1, help="How many threads decode images.")]


@contextmanager
def extra(name: str = "train") -> Iterator[None]:
    """Wraps the imports of a command and names the extra that is missing: `--help` must work without torch."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: {install(name)}") from error


@contextmanager
def writable(output: Path) -> Iterator[None]:
    """Wraps what writes into `output`, so that a failure becomes one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or output}: {error.strerror}") from error
