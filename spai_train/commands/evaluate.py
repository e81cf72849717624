"""spai-train evaluate"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say
from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_runtime.files.digest import sha256_of
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
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.protocol import Protocol
from spai_train.evaluation.ten_crop import Reduction

if TYPE_CHECKING:
    from spai_train.evaluation.evaluate import Evaluation

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
    engine: Annotated[Path | None, typer.Option(help="Or a directory that spai-export wrote; needs no torch.")] = None,
    split: Annotated[str, typer.Option(help="Of the tables that have splits.")] = "test",
    root: Annotated[Path | None, typer.Option(help="That image names are relative to. Left out: their table.")] = None,
    store: ImageStoreOption = None,
    device: TorchDeviceOption = "auto",
    batch_size: ViewBatchOption = None,
    workers: DecodersOption = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For the label. Left out: the detector's own.")
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
        from spai_train.evaluation import results, summary  # noqa: PLC0415  --help must work without matplotlib
        from spai_train.evaluation.calibration import Request  # noqa: PLC0415
        from spai_train.evaluation.evaluate import Options, evaluate  # noqa: PLC0415
    subject = _Subject(ckpt, engine, detector, tower, threshold)
    if calibrate and (engine is None or threshold is not None):
        raise UserError(
            "--calibrate finds the threshold: leave --threshold out"
            if engine
            else "--calibrate writes into an exported directory: export the checkpoint and give it as --engine"
        )
    if calibrate and (resize_to or ten_crop):
        raise UserError("--calibrate is for images as the detector looks at them: leave --resize-to and --ten-crop out")
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
    with subject.load(device) as loaded:
        evaluation = evaluate(loaded, tables, options, subject.digests(loaded))
    if evaluation.calibrated and engine:
        with writable(engine):
            evaluation.calibrated.write(engine if engine.is_dir() else engine.parent)
    with writable(output):
        results.write(evaluation, output)
    summary.show(evaluation)
    return _remarks(evaluation)


@dataclass(frozen=True)
class _Subject:
    """What is evaluated: a checkpoint, or an exported directory."""

    ckpt: Path | None
    engine: Path | None
    detector: str | None
    tower: Path | None
    threshold: float | None

    def __post_init__(self) -> None:
        """:raises UserError: neither or both are named, or what does not go with them"""
        if (self.ckpt is None) == (self.engine is None):
            raise UserError("name what to evaluate: --ckpt CHECKPOINT, or --engine DIRECTORY that spai-export wrote")
        if self.detector and self.ckpt is None:
            raise UserError("--detector is for --ckpt; what an --engine is, its detector.json says: leave it out")
        if self.tower and self.ckpt is None:
            raise UserError("--tower is for --ckpt; an --engine has its own: leave it out")

    def load(self, device: str) -> Detector:
        if self.ckpt is None:
            return Detector.load(self.engine, device=device, threshold=self.threshold)
        with extra():
            from spai_train.torch_engine import load_detector  # noqa: PLC0415  an exported detector needs no torch
        return load_detector(self.ckpt, device, self.threshold, self.detector, self.tower)

    def digests(self, detector: Detector) -> dict[str, str]:
        """The sha256 of the files that the detector was loaded from."""
        if self.ckpt is not None:
            return {self.ckpt.name: sha256_of(self.ckpt)}
        assert detector.artifact is not None, "it was loaded from a directory"
        return {graph.file: graph.sha256 for graph in (detector.artifact.encoder, detector.artifact.head)}


def _perturbations(**levels: Levels) -> tuple[Perturbation, ...]:
    return tuple(Perturbation(Kind(kind), level) for kind, found in levels.items() for level in found or ())


def _remarks(evaluation: "Evaluation") -> int:
    """What a reader of the numbers must know, on stderr; :returns: the exit code."""
    if not evaluation.measurements[0].metrics:
        say("spai-train: AUC and the other metrics need scored images of both classes, so they are left out")
    if evaluation.calibrated:
        say("spai-train: these are metrics of the images that it was calibrated on; another split would be a fair test")
    if evaluation.errors:
        say(f"spai-train: {evaluation.errors} of {evaluation.images} images could not be scored; scores.csv says why")
    return EXIT_SOME_ERRORS if evaluation.errors else 0
