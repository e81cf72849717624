"""spai-train evaluate"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption
from spai_runtime.errors import UserError
from spai_train.commands.edges import (
    DecodersOption,
    DetectorOption,
    ImageStoreOption,
    TorchDeviceOption,
    TowerOption,
    ViewBatchOption,
    extra,
)
from spai_train.commands.evaluating import Evaluating
from spai_train.commands.selection import Selection
from spai_train.commands.subject import Subject
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.benchmark import NAMES as BENCHMARKS
from spai_train.evaluation.protocol import Protocol
from spai_train.evaluation.published_table import NAMES as TABLES
from spai_train.evaluation.published_table import Wanted
from spai_train.evaluation.ten_crop import Reduction

__all__ = ["EPILOG", "run"]

EPILOG = "Exit code: 0 all images scored; 3 some could not be; 2 usage, or nothing could run."

Levels = list[float] | None


def run(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="CSV",
            help="`image,class[,split][,source]` or `filename,typ`; a CSV is one source. With --benchmark, the folder "
            "of its data.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for scores.csv, metrics.json, metrics.csv and the plots.")],
    ckpt: Annotated[Path | None, typer.Option(help="A checkpoint, run in torch.")] = None,
    detector: DetectorOption = None,
    tower: TowerOption = None,
    engine: Annotated[
        list[Path] | None,
        typer.Option(
            help="Or a directory that spai-export wrote; needs no torch. Repeated, it measures each detector, each "
            "rule of fusion, and how far the detectors disagree, and decodes each image once."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the tables that have splits.")] = "test",
    root: Annotated[Path | None, typer.Option(help="That image names are relative to. Left out: their table.")] = None,
    store: ImageStoreOption = None,
    device: TorchDeviceOption = "auto",
    batch_size: ViewBatchOption = None,
    workers: DecodersOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="For the label; of several --engine, for fused scores. Left out: the detector's."
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="pooled: a generator against all real images; spai: against each real source. Left out: pooled, or "
            "the benchmark's."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Takes the images of a benchmark from the folder of its data, and measures by its protocol: "
            f"{', '.join(BENCHMARKS)}.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE[/ROW]",
            help="Shows published figures beside those found here, as far as generators have the same names. ROW is a "
            f"detector, or one of its checkpoints; left out, it is the detector's own. Tables: {', '.join(TABLES)}.",
        ),
    ] = None,
    jpeg: Annotated[
        Levels, typer.Option(help="Once more, as JPEGs of this quality. Repeatable, as those below.")
    ] = None,
    webp: Annotated[Levels, typer.Option(help="As WebP of this quality.")] = None,
    blur: Annotated[Levels, typer.Option(help="Through a Gaussian kernel of this many pixels.")] = None,
    noise: Annotated[
        Levels, typer.Option(help="With noise of this standard deviation, of 255, cut to whole levels.")
    ] = None,
    scale: Annotated[Levels, typer.Option(help="With both sides times this.")] = None,
    resize_to: Annotated[
        int | None, typer.Option(min=1, help="Gives every image a shorter side of this many pixels, behind the above.")
    ] = None,
    ten_crop: Annotated[
        Reduction | None,
        typer.Option(help="Looks at ten crops, each alone; the mean or the largest of their logits counts."),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(help="platt, isotonic, or fpr=RATE: fitted to these images, written to --engine. Repeatable."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of the noise.")] = 0,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Score labelled images, and say with 95% intervals how well real and generated ones are told apart."""
    with extra("evaluate"):
        from spai_train.evaluation.calibration import Request  # noqa: PLC0415  --help must work without matplotlib
        from spai_train.evaluation.evaluate import Options  # noqa: PLC0415
    subject = Subject(ckpt, tuple(engine or ()), detector, tower, threshold)
    if calibrate:
        _check_calibration(subject, looks=bool(resize_to or ten_crop))
    perturbations = _perturbations(jpeg=jpeg, webp=webp, blur=blur, noise=noise, scale=scale)
    request = Request.parse(calibrate) if calibrate else None
    chosen = Selection(benchmark, tuple(tables), root, store, protocol)
    options = Options(
        split=split,
        root=root,
        store=store,
        protocol=chosen.protocol,
        perturbations=perturbations,
        request=request,
        resamples=resamples,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        resize_to=resize_to,
        ten_crop=ten_crop,
        preparation=chosen.preparation,
        threshold=chosen.threshold if threshold is None else None,
    )
    if calibrate and benchmark:
        raise UserError("--calibrate is for images of your own: those of a benchmark are for a test, leave one out")
    return Evaluating(subject, chosen, options, Wanted.parse(against) if against else None, device, output).run()


def _check_calibration(subject: Subject, *, looks: bool) -> None:
    """:param looks: whether the images are looked at in another way than the detector's
    :raises UserError: there is nothing that a calibration could be written to, or none that would hold
    """
    if not subject.engines:
        raise UserError("--calibrate writes into an exported directory: export the checkpoint and give it as --engine")
    if subject.several:
        raise UserError(
            "--calibrate is for one --engine: calibrate one after the other, and then evaluate them together"
        )
    if subject.threshold is not None:
        raise UserError("--calibrate finds the threshold: leave --threshold out")
    if looks:
        raise UserError("--calibrate is for images as the detector looks at them: leave --resize-to and --ten-crop out")


def _perturbations(**levels: Levels) -> tuple[Perturbation, ...]:
    return tuple(Perturbation(Kind(kind), level) for kind, found in levels.items() for level in found or ())
