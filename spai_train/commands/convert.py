"""spai-train convert"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption, show
from spai_runtime.errors import UserError
from spai_train.commands.edges import EPILOG, DetectorOption, TowerOption, extra, writable

__all__ = ["EPILOG", "run"]


def run(
    checkpoint: Annotated[Path, typer.Argument(help="Any checkpoint that spai-export takes.")],
    output: Annotated[
        Path,
        typer.Argument(
            help="What to write: .pth in the layout of the detector's authors, .safetensors in ours, or a folder where "
            "the authors have several files (a fused CO-SPY)."
        ),
    ],
    detector: DetectorOption = None,
    tower: TowerOption = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Rewrite a checkpoint, in the layout of its authors' code (SPAI's: mever-team/spai) or in ours."""
    with extra():
        from spai_train.checkpoint import load_checkpoint, save_checkpoint, save_upstream  # noqa: PLC0415
    loaded = load_checkpoint(checkpoint, detector, tower)
    with writable(output):
        if output.suffix in (".pth", "") or output.is_dir():
            save_upstream(output, loaded.model())
        elif output.suffix == ".safetensors":
            save_checkpoint(output, loaded.model(), loaded.card)
        else:
            raise UserError(f"cannot write {output}: name it .pth (upstream's layout) or .safetensors (ours)")
    show(output)
    return 0
