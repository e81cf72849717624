"""What `pretrain`, `fit` and `search` are told the same way: options, each of which is a key of the recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

RecipeOption = Annotated[str, typer.Option(help="YAML, or a recipe that ships: spai (as published), demo.")]
DataOption = Annotated[
    list[Path] | None, typer.Option("--data", help="CSV with image,class,split; repeatable [data.tables].")
]
RootOption = Annotated[
    Path | None, typer.Option(help="That paths are relative to, else each CSV's folder [data.root].")
]
StoreOption = Annotated[
    Path | None, typer.Option(help="A .lmdb, a .tar or a folder of .tar that holds the images [data.store].")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Processes that read and augment; 0 for none [data.workers].")
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Passes over the images [schedule.epochs].")]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images of a step, over all processes [batch_size].")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda [device].")]
PrecisionOption = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16 [precision].")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Of everything random [seed].")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe; repeatable.")
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
    """Options that were given, under the keys that they set; `--set` comes last and wins.

    :raises RecipeError: an assignment that is not key=value
    """
    from spai_train.recipe import parse_assignments  # noqa: PLC0415  YAML comes with the training extra

    given = {_KEYS.get(name, name): _plain(value) for name, value in options.items() if value is not None}
    return given | parse_assignments(assignments or [])


def _plain(value: Any) -> Any:
    """As YAML would have it."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
