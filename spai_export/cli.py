"""spai-export: a checkpoint → the directory that spai-run takes."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spai_export.choices import Attention, Precision
from spai_runtime.cli.commands import VerboseOption, VersionOption, execute
from spai_runtime.engines import GPU_BATCH_SIZE
from spai_runtime.errors import UserError
from spai_runtime.manifest import Threshold

if TYPE_CHECKING:
    from spai_export.directory import Exported
    from spai_export.plan import Planned

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class DetectorName(StrEnum):
    """The methods that can be exported."""

    SPAI = "spai"


@app.command(
    epilog="Exit code: 0 exported and verified; 2 nothing was written, or, with --trt, no plan was: one line says why."
)
def export(
    ckpt: Annotated[
        Path, typer.Option(help="Upstream's .pth, a bare state dict, or .safetensors; nothing in it is executed.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Directory to write. Left out: the checkpoint's name without suffix, here.")
    ] = None,
    detector: Annotated[DetectorName, typer.Option(help="The method of the checkpoint.")] = DetectorName.SPAI,  # noqa: ARG001
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the encoder's linear layers, convolution and attention; all else, and the head, stay fp32. "
            "int8 and fp8 are for TensorRT, need 'spai-toolkit[quantize]', and calibrate on the images of --calibrate."
        ),
    ] = Precision.FP32,
    attention: Annotated[
        Attention,
        typer.Option(
            help="plain: MatMul, Softmax, MatMul, which TensorRT fuses and everything runs. fused: ONNX's Attention "
            "(opset 23), for which ONNX Runtime has CUDA kernels, and TensorRT since 10.14. auto: fused for fp16 and "
            "bf16 without --trt, else plain."
        ),
    ] = Attention.AUTO,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that a lower precision, and a plan, are held against fp32 on (at most 512 views of them). "
            "Left out: the example images.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write a detector whose scores differ from fp32 by more than 0.01 all the same."),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="To write into detector.json. Left out: the checkpoint's.")
    ] = None,
    trt: Annotated[
        bool, typer.Option("--trt", help="Build TensorRT engines too, model.plan and head.plan, on this machine's GPU.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Of the plan: views that it is tuned for, and takes at most.")
    ] = GPU_BATCH_SIZE,
    device: Annotated[str, typer.Option(help="GPU to build the plan on.")] = "cuda:0",
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="A plan that TensorRT's lean runtime of the same version runs too; it may be slower.",
        ),
    ] = False,
    optimization_level: Annotated[
        int, typer.Option(min=0, max=5, help="Of TensorRT: 0 builds fast, 5 searches longest for fast kernels.")
    ] = 3,
    workspace: Annotated[
        float | None,
        typer.Option(min=0, metavar="GIB", help="Memory that TensorRT's kernels may use. Left out: the GPU's."),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Timings of earlier builds, read and extended: the next build is faster."),
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
    version: VersionOption = False,  # noqa: ARG001
) -> int:
    """Export a checkpoint to ONNX graphs, and to TensorRT engines, verified before they appear.

    Writes encoder.onnx (`views` uint8 (V,S,S,3) → `features` float32 (V,D)), head.onnx (`features` (B,V,D) → `logit`
    (B,1), `attention` (B,V)) and detector.json; with --trt also model.plan, head.plan and model.layers.json (what
    TensorRT's inspector says of the layers).
    """
    try:
        from spai_export import directory, plan  # noqa: PLC0415  --help must work without torch
        from spai_export.builder import BuildOptions  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'spai-toolkit[export]'") from error
    chosen = None if threshold is None else Threshold(threshold, "given to spai-export --threshold")
    fused = attention.fused(precision, trt=trt)
    options = BuildOptions(batch_size, workspace, version_compatible, timing_cache, optimization_level, device=device)
    source = directory.Source.load(ckpt, directory.Settings(precision, fused, chosen, calibrate, force))
    exported = directory.write(source, output or Path(ckpt.stem))
    _tell(exported)
    if trt:
        _tell_plan(plan.add_plan(source, exported, options))
    return 0


def _tell(exported: "Exported") -> None:
    _tell_files(exported.files)
    typer.echo(f"largest difference from torch: {exported.differences} (tolerated: {exported.tolerance})")
    if exported.deviation:
        typer.echo(str(exported.deviation))
    limit = exported.manifest.threshold
    typer.echo(f"threshold {limit.value:g}: {limit.source}")


def _tell_plan(planned: "Planned") -> None:
    _tell_files(planned.files)
    for note in planned.notes:
        typer.echo(note)
    typer.echo(f"{planned.deviation}; built and tried in {planned.seconds:.0f} s")


def _tell_files(files: Sequence[Path]) -> None:
    for path in files:
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    return execute(app, "spai-export", arguments)
