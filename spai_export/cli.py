"""spai-export: a checkpoint → the directory that spai-run takes."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.commands import VerboseOption, VersionOption, execute
from spai_runtime.errors import UserError
from spai_runtime.manifest import Threshold

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class DetectorName(StrEnum):
    """The methods that can be exported."""

    SPAI = "spai"


class Precision(StrEnum):
    """Of the graphs' weights and products."""

    FP32 = "fp32"


@app.command(epilog="Exit code: 0 exported and verified; 2 nothing was written.")
def export(
    ckpt: Annotated[
        Path, typer.Option(help="Upstream's .pth, a bare state dict, or .safetensors; nothing in it is executed.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Directory to write. Left out: the checkpoint's name without suffix, here.")
    ] = None,
    detector: Annotated[DetectorName, typer.Option(help="The method of the checkpoint.")] = DetectorName.SPAI,  # noqa: ARG001
    precision: Annotated[Precision, typer.Option(help="Of the exported graphs.")] = Precision.FP32,  # noqa: ARG001
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="To write into detector.json. Left out: the checkpoint's.")
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
    version: VersionOption = False,  # noqa: ARG001
) -> int:
    """Export a checkpoint to ONNX graphs, verified against torch before they appear.

    Writes encoder.onnx (`views` uint8 (V,S,S,3) → `features` float32 (V,D)), head.onnx (`features` (B,V,D) → `logit`
    (B,1), `attention` (B,V)) and detector.json.
    """
    try:
        from spai_export import directory  # noqa: PLC0415  --help must work without torch
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'spai-toolkit[export]'") from error
    chosen = None if threshold is None else Threshold(threshold, "given to spai-export --threshold")
    exported = directory.export(ckpt, output or Path(ckpt.stem), chosen)
    for path in exported.files:
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")
    typer.echo(f"largest difference from torch: {exported.differences} (tolerated: {exported.tolerance})")
    limit = exported.manifest.threshold
    typer.echo(f"threshold {limit.value:g}: {limit.source}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    return execute(app, "spai-export", arguments)
