"""spai-train baselines"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption
from spai_train.commands.edges import extra, writable

EPILOG = (
    "Exit code: 0 measured; 2 usage, or nothing could be measured. A detector that one of these matches has learned no "
    "more than it sees, or the data give the classes away. Images that cannot be read are left out."
)


def run(
    tables: Annotated[list[Path], typer.Argument(metavar="CSV...", help="Tables whose images of --split are scored.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for baselines.json.")],
    train: Annotated[
        list[Path] | None,
        typer.Option(help="CSV whose split train is learned from. Without it, the tables. Repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    root: Annotated[
        Path | None, typer.Option(help="Folder that paths are relative to. Without it, the folder of each CSV.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes work.")] = 2,
    resamples: Annotated[int, typer.Option(min=1, help="How many resamples the bootstrap draws.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the classifiers and of the bootstrap.")] = 0,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Measure what colour, sharpness, file size and the radial spectrum alone tell of the classes."""
    with extra():
        from spai_train.data.table import check_classes, read_tables  # noqa: PLC0415
        from spai_train.evaluation.baselines import measure_baselines  # noqa: PLC0415  --help must work without torch
        from spai_train.evaluation.summary import show_means  # noqa: PLC0415
    training, test = read_tables(train or tables, "train", root), read_tables(tables, split, root)
    check_classes(training, "the split train")
    found = measure_baselines(training, test, workers, resamples, seed)
    with writable(output):
        output.mkdir(parents=True, exist_ok=True)
        content = {name: {key: asdict(value) for key, value in each.mean.items()} for name, each in found.items()}
        (output / "baselines.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    show_means(found, "baseline")
    return 0
