"""spai-train evaluate"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say
from spai_runtime.errors import UserError
from spai_train.commands.edges import (
    DecodersOption,
    DetectorOption,
    ImageStoreOption,
    TorchDeviceOption,
    TowerOption,
    ViewBatchOption,
    extra,
    writable,
)
from spai_train.commands.subject import Subject
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.protocol import Protocol
from spai_train.evaluation.ten_crop import Reduction

if TYPE_CHECKING:
    from spai_train.evaluation.evaluate import Evaluation, Options
    from spai_train.evaluation.several import Together

__all__ = ["EPILOG", "run"]

EPILOG = "Exit code: 0 all images scored; 3 some could not be; 2 usage, or nothing could run."

Levels = list[float] | None


def run(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="CSV", help="`image,class[,split][,source]` or `filename,typ`; a CSV is one source."),
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
        Protocol, typer.Option(help="pooled: a generator against all real images; spai: against each real source.")
    ] = Protocol.POOLED,
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
    options = Options(
        split,
        root,
        store,
        protocol,
        perturbations,
        request,
        resamples,
        seed,
        batch_size,
        workers,
        resize_to,
        ten_crop,
    )
    if subject.several:
        return _evaluate_together(subject, tables, options, device, output)
    return _evaluate(subject, tables, options, device, output)


def _evaluate(subject: Subject, tables: Sequence[Path], options: "Options", device: str, output: Path) -> int:
    from spai_train.evaluation import results, summary  # noqa: PLC0415
    from spai_train.evaluation.evaluate import evaluate  # noqa: PLC0415

    (loading,) = subject.load(device)
    with loading as loaded:
        evaluation = evaluate(loaded, tables, options, subject.digests(loaded))
    if evaluation.calibrated:
        (engine,) = subject.engines
        with writable(engine):
            evaluation.calibrated.write(engine if engine.is_dir() else engine.parent)
    with writable(output):
        results.write(evaluation, output)
    summary.show(evaluation)
    return _remarks(evaluation, evaluation)


def _evaluate_together(subject: Subject, tables: Sequence[Path], options: "Options", device: str, output: Path) -> int:
    from spai_train.evaluation import several_results, summary  # noqa: PLC0415
    from spai_train.evaluation.several import evaluate_together  # noqa: PLC0415

    with ExitStack() as stack:
        detectors = [stack.enter_context(detector) for detector in subject.load(device)]
        files = [subject.digests(detector) for detector in detectors]
        together = evaluate_together(detectors, tables, options, files, subject.fused_threshold)
    with writable(output):
        several_results.write(together, output)
    summary.show_together(together)
    return _remarks(together, together.detectors[0])


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


def _remarks(found: "Evaluation | Together", first: "Evaluation") -> int:
    """What a reader of the numbers must know, on stderr; :returns: the exit code."""
    if not first.measurements[0].metrics:
        say("spai-train: AUC and the other metrics need scored images of both classes, so they are left out")
    if first.calibrated:
        say("spai-train: these are metrics of the images that it was calibrated on; another split would be a fair test")
    if found.errors:
        say(f"spai-train: {found.errors} of {found.images} images could not be scored; scores.csv says why")
    return EXIT_SOME_ERRORS if found.errors else 0
