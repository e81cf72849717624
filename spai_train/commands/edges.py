"""What every command does at its edge: a missing extra and an unwritable output become one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.errors import UserError
from spai_train.detectors import DETECTORS

EPILOG = "Exit code: 0 written; 2 usage, or nothing could be written."


DetectorOption = Annotated[
    str | None,
    typer.Option(help=f"Which the checkpoint must be of: {', '.join(DETECTORS)}. Left out: found in the checkpoint."),
]

TowerOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The backbone of a checkpoint that leaves it out (RINE, ClipDet): CLIP, as its authors publish it. "
        "Left out: the published file beside the checkpoint.",
    ),
]

# Of commands that run a detector on the images of tables, without a recipe.
ImageStoreOption = Annotated[
    Path | None, typer.Option(help="A .lmdb, a .tar or a folder of .tar that holds the images.")
]
TorchDeviceOption = Annotated[str, typer.Option(help="auto, cpu, or cuda:0.")]
ViewBatchOption = Annotated[int | None, typer.Option(min=1, help="Views that the encoder is given at once.")]
DecodersOption = Annotated[int | None, typer.Option(min=1, help="Decoding threads.")]


@contextmanager
def extra(name: str = "train") -> Iterator[None]:
    """Around the imports of a command: `--help` must work without torch."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'spai-toolkit[{name}]'") from error


@contextmanager
def writable(output: Path) -> Iterator[None]:
    """Around what writes into `output`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or output}: {error.strerror}") from error
