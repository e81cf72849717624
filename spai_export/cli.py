"""spai-export: a checkpoint → the directory that spai-run takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spai_export.choices import Attention, Int8For, Precision, Settings, TrtFor
from spai_runtime.cli.commands import COMMON_CODES, VerboseOption, VersionOption, execute, say, show
from spai_runtime.engines.base import GPU_BATCH_SIZE
from spai_runtime.errors import UserError
from spai_runtime.files.sources import Sources
from spai_runtime.install import extra, install
from spai_runtime.manifest import Threshold
from spai_train.commands.edges import TowerOption
from spai_train.detectors import DETECTORS

if TYPE_CHECKING:
    from spai_export.directory import ExportReport
    from spai_export.tensorrt.export import PlanReport

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    epilog="Exit code: 0 exported and verified; 2 nothing was written, or, with --trt, no plan was: one line says why. "
    f"{COMMON_CODES}"
)
def export(
    ckpt: Annotated[
        Path,
        typer.Option(
            help="Checkpoint: the authors' .pth, a bare state dict, or .safetensors. Nothing in it is executed."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Directory to write. Without it, the checkpoint's name without its suffix."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Refuse a checkpoint of any other detector: {', '.join(DETECTORS)}. Without it, the checkpoint "
            "tells.",
        ),
    ] = None,
    tower: TowerOption = None,
    ten_crop: Annotated[
        bool,
        typer.Option(
            "--ten-crop",
            help="Let the detector look at ten crops (corners and centre, and the same mirrored) instead of its own "
            "view, and give the mean of their logits. SPAI has no ten crops, since its head looks at all views "
            "together.",
        ),
    ] = False,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            help="Precision of the encoder's linear layers, convolutions and attention; the rest, and the head, "
            "stay fp32. Repeat it for several in one directory. Without it, fp32. int8 and fp8 calibrate on "
            f"--images. fp8, and int8 with --trt, are for TensorRT, and need {extra('quantize')}."
        ),
    ] = None,
    int8_for: Annotated[
        Int8For | None,
        typer.Option(
            help="What int8 is made for. cpu: int8 between layers in fp32, by ONNX Runtime's quantiser, for "
            "OpenVINO and ONNX Runtime. gpu: int8 between layers in fp16, by ModelOpt, for TensorRT. Without "
            "it, gpu with --trt, else cpu."
        ),
    ] = None,
    attention: Annotated[
        Attention,
        typer.Option(
            help="How attention is written. plain: MatMul, Softmax, MatMul, which TensorRT fuses and everything "
            "runs. fused: ONNX's Attention (opset 23), for which ONNX Runtime has CUDA kernels, and TensorRT "
            "since 10.14. auto: fused for fp16 and bf16 without --trt, else plain."
        ),
    ] = Attention.AUTO,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that a lower precision, and a plan, are compared with fp32 on (at most 512 views of them), "
            "and that int8 and fp8 calibrate on. Without it, the example images.",
        ),
    ] = None,
    calibrate: Annotated[Path | None, typer.Option(hidden=True, help="The old name of --images.")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write a detector even if its scores differ from those of fp32 by more than 0.01."
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            min=0,
            max=1,
            help="Threshold to write into detector.json. Without it, the checkpoint's.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Licence of the weights, such as Apache-2.0, to write into detector.json and the model card. Without "
            "it, that of a published checkpoint, and none of any other.",
        ),
    ] = None,
    trt: Annotated[
        bool,
        typer.Option(
            "--trt",
            help="Build TensorRT engines too, model.plan and head.plan: by TensorRT for this machine's GPU where both "
            f"are present, else by TensorRT for RTX ({extra('rtx')}), which needs no GPU, for GeForce RTX. A line "
            "says which it was, and for which GPUs.",
        ),
    ] = False,
    trt_for: Annotated[
        TrtFor | None,
        typer.Option(
            help="Build for this machine's GPU (gpu) or for GPUs of compute capability 8.0, 8.6, 8.9 and 12.x (rtx; "
            "fp8: 8.9 and 12.x), and not for what --trt would choose."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="How many views the plan is tuned for, and takes at most.")
    ] = GPU_BATCH_SIZE,
    device: Annotated[
        str, typer.Option("--device", "-d", help="GPU that TensorRT builds the plan on, and compares its scores on.")
    ] = "cuda:0",
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Build a plan that TensorRT's lean runtime of the same version runs too; it may be slower. Not for "
            "RTX.",
        ),
    ] = False,
    optimization_level: Annotated[
        int, typer.Option(min=0, max=5, help="Effort of TensorRT: 0 builds fast, 5 searches longest for fast kernels.")
    ] = 3,
    workspace: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GIB",
            help="Memory that TensorRT's kernels may use, more than 0. Without it, all of the GPU's.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with timings of earlier builds, which is read and extended: the next build is faster. Not "
            "for RTX.",
        ),
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
    version: VersionOption = False,  # noqa: ARG001
) -> int:
    """Export a checkpoint to ONNX graphs, and to TensorRT engines, verified before they appear.

    Writes encoder.onnx (`views` uint8 (V,H,W,3) → `features` float32 (V,D)), head.onnx (`features` (B,V,D) → `logit`
    (B,1), and `attention` (B,V) if there is one), detector.json, and README.md, a model card for the Hugging Face hub
    (a README.md of your own stays as it is); with --trt also model.plan, head.plan and model.layers.json (what
    TensorRT's inspector says of the layers; not for RTX). Of several precisions, the first has these files, and each
    other one its own: encoder.fp16.onnx, model.fp16.plan. A plan is native code: a directory from a stranger is run at
    one's own risk.
    """
    if trt_for and not trt:
        raise UserError("--trt-for says which plans --trt builds: give --trt too")
    settings = Settings(
        precisions=tuple(precision or [Precision.FP32]),
        attention=attention,
        trt=trt,
        threshold=None if threshold is None else Threshold(threshold, "given to spai-export --threshold"),
        images=_images(images, calibrate),
        force=force,
        ten_crop=ten_crop,
        int8_for=int8_for,
    )
    try:
        from spai_export import directory  # noqa: PLC0415  --help must work without torch
        from spai_export.source import Source  # noqa: PLC0415
        from spai_export.tensorrt import export as plans  # noqa: PLC0415
        from spai_export.tensorrt.builder import BuildOptions  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: {install('export')}") from error
    options = BuildOptions(
        batch_size, workspace, version_compatible, timing_cache, optimization_level, device=device, trt_for=trt_for
    )
    source = Source.load(ckpt, settings, detector, tower)
    licences = {"code": source.checkpoint.detector.code_licence, "weights": licence}
    report = directory.write(source, output or Path(ckpt.stem), {"licences": licences} if licence else None)
    _show(report)
    if trt:
        _show(plans.add_plans(source, report, options))
    return 0


def _images(images: Path | None, calibrate: Path | None) -> Path | None:
    """The folder that --images names, or its old name --calibrate."""
    if calibrate is not None:
        if images is not None:
            raise UserError("--calibrate is the old name of --images: give --images alone")
        say("spai-export: --calibrate is now --images")
        images = calibrate
    if images is not None:
        Sources([str(images)])  # refuses what is not there, before anything long begins
    return images


def _show(report: "ExportReport | PlanReport") -> None:
    for path in report.files:
        show(f"{path}  {path.stat().st_size:,} bytes")
    for sentence in report.sentences:
        show(sentence)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of the command. :returns: the exit code"""
    return execute(app, "spai-export", arguments)
