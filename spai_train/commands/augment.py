"""spai-train augment"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import PIL.Image
import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say, show
from spai_runtime.errors import ImageError, UserError
from spai_runtime.files.sources import printable
from spai_runtime.images import Picture
from spai_runtime.scoring.budget import PIXEL_BYTES, Budget
from spai_train.commands.edges import extra, writable
from spai_train.commands.training import RecipeOption
from spai_train.data import Image
from spai_train.data.table import Row, read_table, write_table

if TYPE_CHECKING:
    from spai_train.data.augment import Augment

EPILOG = "Exit code: 0 written; 3 written, less images that cannot be read; 2 usage, or nothing could be written."

IMAGES = "images"  # the folder of the files, beside the table


def run(
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Labelled images: image,class[,split,source].")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make, with images/ and a CSV of the same name.")
    ],
    split: Annotated[
        str, typer.Option(help="Split whose rows are copied. A CSV without splits is copied whole.")
    ] = "val",
    root: Annotated[Path | None, typer.Option(help="Folder that paths are relative to. Without it, the CSV's.")] = None,
    recipe: RecipeOption = "spai",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    size: Annotated[int, typer.Option(min=1, help="Side of the augmented images in pixels.")] = 224,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many threads work. Without it, one for each core, at most 8.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe's augmentation; repeatable."),
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Write an augmented copy of a split: the augmentation of a recipe's fit, drawn once, to validate on."""
    with extra():
        from spai_train.data.augment import Augment  # noqa: PLC0415  --help must work without torch
        from spai_train.fit import FitRecipe  # noqa: PLC0415
        from spai_train.recipe import load_recipe, parse_assignments  # noqa: PLC0415
    changes = {f"augmentation.{key}": value for key, value in parse_assignments(assignments or []).items()}
    augment = Augment(load_recipe(recipe, "fit", FitRecipe, changes).augmentation, size)
    rows = read_table(table, split, root)
    with writable(output), _one_thread_each():
        _make_empty(output)
        written = copy_augmented(rows, output, augment, seed, workers or min(8, os.cpu_count() or 1))
        if not written:
            raise UserError(f"none of the {len(rows)} images can be read; say with --root what paths are relative to")
        write_table(output / f"{table.stem}.csv", written)
    show(output / f"{table.stem}.csv")
    return 0 if len(written) == len(rows) else EXIT_SOME_ERRORS


def copy_augmented(rows: Sequence[Row], output: Path, augment: "Augment", seed: int, workers: int) -> list[Row]:
    """Writes one augmented PNG for each row; an image that cannot be read is named on stderr and left out.

    A file depends on the seed, the image's name and its pixels alone, not on other rows or the number of threads.

    :returns: the rows that were written, named relative to `output`, in their order
    """
    (output / IMAGES).mkdir()
    copy = partial(_copy, output=output, augment=augment, seed=seed, budget=Budget(PIXEL_BYTES))
    with ThreadPoolExecutor(workers) as pool:
        outcomes = pool.map(copy, rows, range(len(rows)))
        return list(_reported(outcomes))


def _reported(outcomes: Iterable[Row | str]) -> Iterator[Row]:
    """Yields the rows, and prints what went wrong with the other images."""
    for outcome in outcomes:
        if isinstance(outcome, str):
            say(outcome)
        else:
            yield outcome


def _copy(row: Row, ticket: int, output: Path, augment: "Augment", seed: int, budget: Budget) -> Row | str:
    """Writes the copy of an image; gives its row, or a sentence on what is wrong.

    :param ticket: the image's number; the budget waits for every number in turn
    """
    digest = hashlib.sha256(f"{seed} {row.name}".encode(errors="surrogateescape")).digest()
    try:
        view = _view(row, ticket, augment, int.from_bytes(digest[:8]), budget)
    except ImageError as error:
        return f"{printable(row.name)}: {error}"
    name = f"{IMAGES}/{_plain(Path(row.name).stem)}-{digest.hex()[:12]}.png"  # unique, and inside the folder
    PIL.Image.fromarray(view).save(output / name)
    return replace(row, name=name, path=output / name)


def _view(row: Row, ticket: int, augment: "Augment", seed: int, budget: Budget) -> Image:
    """:raises ImageError: it cannot be read"""
    try:
        picture = Picture.open(row.path)
    except ImageError:
        with budget.held(ticket, 0):
            raise
    with budget.held(ticket, augment.nbytes(picture)), closing(picture):
        return augment(picture, seed)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keeps torch from starting threads of its own beside those that each have an image."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(stem: str) -> str:
    return re.sub(r"[^\w.-]", "_", stem)[:50]


def _make_empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"{printable(folder)} is not empty; name a folder to make, or empty it")
