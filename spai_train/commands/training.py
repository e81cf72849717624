"""What `pretrain`, `fit` and `search` are told the same way: options, each of which is a key of the recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

RecipeOption = Annotated[
    str, typer.Option(help="A YAML file, or a recipe that ships: spai (as published) or small (for a CPU).")
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", help="CSV with the columns image, class and split; repeatable [data.tables]."),
]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder that paths are relative to. Without it, the folder of each CSV [data.root].")
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Where the images are packed: a .lmdb, a .tar, or a folder of .tar [data.store].")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="How many processes read and augment; 0 does it in this one [data.workers].")
]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, help="How many times all images are learned from [schedule.epochs].")
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="How many images a step has, over all processes. Without it, what the recipe says; that of a recipe that "
        "ships becomes smaller where an epoch would have fewer than 8 steps [batch_size].",
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="Where to run: auto, cpu or cuda [device].")]
PrecisionOption = Annotated[
    str | None, typer.Option(help="Precision of the products: auto, fp32, bf16 or fp16 [precision].")
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of everything that is random [seed].")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the recipe; repeatable.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in --output, if there is one.")]

_KEYS = {
    "data": "data.tables",
    "validation": "data.validation",
    "test_csv": "data.tests",
    "root": "data.root",
    "store": "data.store",
    "workers": "data.workers",
    "epochs": "schedule.epochs",
    "patience": "stopping.patience",
    "learning_rate": "optimizer.learning_rate",
}


def overrides(assignments: list[str] | None, **options: Any) -> dict[str, Any]:
    """The options that the user gave, under the keys that they set; `--set` comes last and wins.

    :raises RecipeError: an assignment is not key=value
    """
    from spai_train.recipe import parse_assignments  # noqa: PLC0415  YAML comes with the training extra

    given = {_KEYS.get(name, name): _plain(value) for name, value in options.items() if value is not None}
    return given | parse_assignments(assignments or [])


def _plain(value: Any) -> Any:
    """A value as YAML would have it: paths become text."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
