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

EPILOG = (
    "Exit code: 0 all images scored; 3 some could not be, or the images did not suffice for --calibrate, and all else "
    "is written; 2 usage, or nothing could run."
)

Levels = list[float] | None


def run(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="CSV",
            help="CSV with image,class[,split][,source] or filename,typ; one without a column source is one source. "
            "With --benchmark, the folder of its data instead.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for scores.csv, metrics.json, metrics.csv, the plots, and report.html."
        ),
    ],
    ckpt: Annotated[Path | None, typer.Option(help="Checkpoint to evaluate, in torch.")] = None,
    detector: DetectorOption = None,
    tower: TowerOption = None,
    engine: Annotated[
        list[Path] | None,
        typer.Option(
            help="Directory that spai-export wrote, to evaluate instead of --ckpt; this needs no torch. If you "
            "repeat it, each detector, each rule of fusion and the disagreement of the detectors are measured, "
            "and each image is decoded once."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to score, of the tables that have splits.")] = "test",
    root: Annotated[
        Path | None, typer.Option(help="Folder that images are relative to. Without it, their table's.")
    ] = None,
    store: ImageStoreOption = None,
    device: TorchDeviceOption = "auto",
    batch_size: ViewBatchOption = None,
    workers: DecodersOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            min=0,
            max=1,
            help="Score above which an image gets the label; with several --engine, the fused score. Without it, the "
            "threshold of the detector.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="What a generator is measured against: all real images (pooled), or each real source (spai). "
            "Without it, pooled, or what the benchmark says."
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
        Levels, typer.Option(help="Score once more as JPEGs of this quality. Repeatable, as are the next four.")
    ] = None,
    webp: Annotated[Levels, typer.Option(help="Score once more as WebP of this quality.")] = None,
    blur: Annotated[Levels, typer.Option(help="Score once more through a Gaussian kernel of this many pixels.")] = None,
    noise: Annotated[
        Levels, typer.Option(help="Score once more with noise of this standard deviation, in grey levels of 255.")
    ] = None,
    scale: Annotated[Levels, typer.Option(help="Score once more with both sides multiplied by this.")] = None,
    resize_to: Annotated[
        int | None,
        typer.Option(min=1, help="Resize every image, after the above, to a shorter side of this many pixels."),
    ] = None,
    ten_crop: Annotated[
        Reduction | None,
        typer.Option(help="Score ten crops of each image, and take the mean or the largest of their logits."),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(help="Fit platt, isotonic or fpr=RATE to these images, and write it into --engine. Repeatable."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="How many resamples the bootstrap draws.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of the noise.")] = 0,
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
    """:param looks: whether the images are looked at in another way than the detector's own
    :raises UserError: there is nothing that a calibration could be written to, or it would not hold
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
