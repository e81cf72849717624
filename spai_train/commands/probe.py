"""spai-train probe"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say, show
from spai_runtime.files.sources import printable
from spai_train.commands.edges import (
    DecodersOption,
    ImageStoreOption,
    TorchDeviceOption,
    TowerOption,
    ViewBatchOption,
    extra,
    writable,
)
from spai_train.data.index import CALIBRATION
from spai_train.data.table import read_table
from spai_train.detectors import DETECTORS
from spai_train.probing.options import Classifier

if TYPE_CHECKING:
    from spai_train.probe import Probed

__all__ = ["EPILOG", "run"]

EPILOG = (
    "Exit code: 0 fitted; 3 fitted, but some images could not be read and were left out; 2 usage, or nothing could be "
    "fitted. --output holds probe.safetensors for spai-export, probe.json, and the features as features-KEY.npy: the "
    "same command goes on with an interrupted one, computes nothing again for an image that has not changed (by size "
    "and time of modification), and the file may be deleted. Not every model of timm exports: TensorRT has no operator "
    "for some, such as volo, and spai-export says so."
)


def run(
    data: Annotated[list[Path], typer.Option(help="CSV with the columns image, class and split; repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the checkpoint and the features.")],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model of timm, with or without the tag of its weights: resnet18.a1_in1k."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Detector whose linear layer is fitted, of {', '.join(DETECTORS)}; with the backbone of "
            "--pretrained, or the encoder of --start. Without it, that of --start, or probe.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File of the backbone's weights in timm's names, .safetensors or .pth; nothing in it is executed. "
            "With --backbone it may be left out: timm then downloads the weights.",
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Keep the encoder of this checkpoint, and fit its linear layer anew.")
    ] = None,
    tower: TowerOption = None,
    classifier: Annotated[
        Classifier,
        typer.Option(
            help="Logistic regression, or a linear SVM, whose margins become log-odds by Platt's sigmoid on the "
            "split val. C is the one of 1e-6, 1e-5 … 100 with the least log-loss on val."
        ),
    ] = Classifier.LOGISTIC,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train on N real and N AI-generated images, drawn from the seed."),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Divide each image's features by their L2 norm.")
    ] = False,
    name: Annotated[
        str, typer.Option(help="Name of the detector. Without it, that of --start, or of its method.")
    ] = "",
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="Label of images like those of class 1, e.g. edited. Without it, that of --start, or ai.",
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="CSV of the validation images. Without it, the split val of --data.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that paths are relative to. Without it, the folder of each CSV.")
    ] = None,
    store: ImageStoreOption = None,
    device: TorchDeviceOption = "auto",
    batch_size: ViewBatchOption = None,
    workers: DecodersOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --pairs and of the SVM.")] = 0,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Fit a linear layer to the features of a frozen backbone: the cheapest way to a detector of one's own.

    Each image goes through the backbone once; the fit itself takes seconds. Views are those that timm evaluates the
    model on: a resize of the shorter side, or of both, and a centre crop.
    """
    with extra():
        from spai_train.data.rows import DataSettings  # noqa: PLC0415  --help must work without torch
        from spai_train.probe import probe  # noqa: PLC0415
        from spai_train.probing.extraction import Reading  # noqa: PLC0415
        from spai_train.probing.options import Encoder, Fitting  # noqa: PLC0415
    encoder = Encoder(backbone, detector, pretrained, start, tower, normalise)
    tables = DataSettings(
        tuple(map(str, data)), tuple(map(str, validation or ())), root=None if root is None else str(root)
    )
    reading = Reading(device, store, batch_size, workers)
    with writable(output):
        probed = probe(tables, encoder, Fitting(classifier, pairs, seed, positive), reading, output, name)
    kept = next((table for table in data if any(row.split == CALIBRATION for row in read_table(table))), None)
    table, split = (kept, CALIBRATION) if kept else ((validation or data)[0], "val")
    _show(probed, classifier, _calibration(table, split, root, store))
    return EXIT_SOME_ERRORS if probed.skipped else 0


def _calibration(table: Path, split: str, root: Path | None, store: Path | None) -> list[str]:
    """What `evaluate` is told of the images that a threshold is calibrated on."""
    places = {"--root": root, "--store": store}
    return [
        str(table),
        "--split",
        split,
        *(word for name, path in places.items() if path for word in (name, str(path))),
    ]


def _show(probed: "Probed", classifier: Classifier, calibration: list[str]) -> None:
    """Prints the result and what to do next on stdout, and what was left out on stderr."""
    for one in probed.skipped:
        say(f"skipped {printable(one.row.name)}: {one.error}")
    extracted, line, measured = probed.extracted, probed.line, probed.measured
    left_out = f"; {len(probed.skipped)} could not be read and were left out" if probed.skipped else ""
    computed, kept = extracted.computed, len(extracted.rows) - extracted.computed
    folder = str(probed.checkpoint.parent / "calibration")
    export = ["spai-export", "--ckpt", str(probed.checkpoint), "--output", probed.name]
    evaluate = ["spai-train", "evaluate", *calibration, "--engine", probed.name, "--calibrate", "fpr=0.05"]
    show(
        f"trained on {probed.training}, chosen on {probed.validation}{left_out}",
        f"{extracted.features.shape[1]} features of {probed.encoder}; computed for {computed} images, there for {kept}",
        f"{classifier.described} with C = {line.penalty:g}, whose log-loss on val is the least: {line.loss:.4g}",
        f"val: AUC {measured.auc:.4g}, accuracy {measured.accuracy:.4g} at the threshold 0.5, which is not calibrated",
        probed.checkpoint,
        f"next: {shlex.join(export)}",
        f"then: {shlex.join([*evaluate, '--output', folder])}",
    )
