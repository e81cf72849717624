"""spai-train index"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say, show
from spai_runtime.errors import UserError
from spai_runtime.files.sources import printable
from spai_runtime.text import visible
from spai_train.commands.edges import writable
from spai_train.data.index import DRAWN, Index, Splitting, read_images, tabulate
from spai_train.data.layouts import DMID, CNNDetection, Folders, GenImage, Layout, Synthbuster, find
from spai_train.data.table import Row, counts, write_table

EPILOG = (
    "Exit code: 0 every image is in the table; 3 some could not be used; 2 usage, or nothing could be written. "
    "A file that does not decode is left out and named, and so is one that is found as real and as AI-generated. "
    "Of other copies (the same bytes) one stays: that of the test split, else of val, else of train, else the first. "
    "Where a layout has no split, each source's images of a class are shuffled by the seed and the SHA-256 of their "
    "files, and cut by the shares: names, places and the order of the folders do not matter."
)


class Kind(StrEnum):
    """The layouts that can be named."""

    FOLDERS = "folders"
    GENIMAGE = "genimage"
    CNNDETECTION = "cnndetection"
    DMID = "dmid"
    SYNTHBUSTER = "synthbuster"


_LAYOUTS: dict[Kind, tuple[Callable[..., Layout], tuple[str, ...]]] = {
    Kind.GENIMAGE: (GenImage, ("DIR",)),
    Kind.CNNDETECTION: (CNNDetection, ("DIR",)),
    Kind.DMID: (DMID, ("DIR", "--coco", "--lsun")),
    Kind.SYNTHBUSTER: (Synthbuster, ("DIR", "--raise")),
}


def run(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .csv to write; its columns are image, class, split and source.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of the data set that --layout names.")
    ] = None,
    real: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Folder of real images; repeatable.")] = None,
    fake: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of AI-generated images; repeatable.")
    ] = None,
    layout: Annotated[
        Kind,
        typer.Option(
            help="How the images lie. folders: in --real and --fake. genimage: "
            "DIR/<generator>/{train,val}/{ai,nature}. cnndetection: 0_real and 1_fake anywhere below DIR. "
            "dmid: DIR/{train,val}. synthbuster: DIR/<generator> and DIR/prompts.csv."
        ),
    ] = Kind.FOLDERS,
    coco: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of COCO, with train2017/; for dmid.")] = None,
    lsun: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of CNNDetection, with train/; for dmid.")
    ] = None,
    raise1k: Annotated[
        Path | None, typer.Option("--raise", metavar="DIR", help="Folder of RAISE-1k, with tiff/; for synthbuster.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of all images, where the layout has none. Without it, --shares decides.")
    ] = "",
    shares: Annotated[
        str,
        typer.Option(
            help="Shares of train, val and test, and if there is a fourth, of calibration: images for "
            "`evaluate --split calibration --calibrate`, which chose nothing in the training."
        ),
    ] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Seed of the automatic split.")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Decode every image, or only look for copies.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many threads read. Without it, one for each core, at most 8.")
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Make a table of labelled images from folders: what fit, evaluate, pack and spai-run read."""
    splitting = Splitting(split, _parse(shares), seed)
    given = {"DIR": folder, "--coco": coco, "--lsun": lsun, "--raise": raise1k}
    chosen = _layout(layout, {name: path for name, path in given.items() if path}, real or (), fake or ())
    _check(output)
    index = _index(chosen, output.parent, splitting, workers or min(8, os.cpu_count() or 1), verify=verify)
    _report(index)
    if not index.rows:
        raise UserError(f"none of the {len(index.broken)} images can be used, so there is no table to write")
    with writable(output):
        write_table(output, index.rows)
    _show(index.rows)
    show(output)
    return EXIT_SOME_ERRORS if index.broken else 0


def _layout(kind: Kind, given: dict[str, Path], real: Sequence[Path], fake: Sequence[Path]) -> Layout:
    if kind is Kind.FOLDERS:
        if given or not (real or fake):
            raise UserError("name the images: --real DIR and --fake DIR, or --layout NAME DIR")
        return Folders(real, fake)
    layout, needs = _LAYOUTS[kind]
    if real or fake or tuple(given) != needs:
        raise UserError(f"--layout {kind} takes {' and '.join(needs)}, and nothing else that names images")
    return layout(*given.values())


def _parse(shares: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise UserError(
            f"--shares is {shares} where three numbers like 0.8,0.1,0.1 were expected, or four like 0.7,0.1,0.1,0.1"
        ) from error


def _check(output: Path) -> None:
    """Checks that the table can be written, before hours of reading."""
    if output.suffix.lower() != ".csv" or output.is_dir():
        raise UserError(f"cannot write {printable(output)}: name a .csv file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UserError(f"cannot write {printable(output)}: {error.strerror}") from error


def _index(layout: Layout, folder: Path, splitting: Splitting, workers: int, *, verify: bool) -> Index:
    found = find(layout)
    images = read_images(found, workers, verify=verify)
    shown = track(
        images,
        "reading images",
        total=len(found),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # a decoder's remarks on a file that it decodes
        return tabulate(shown, folder, splitting)


def _report(index: Index) -> None:
    """Lists every file that is not in the table, and how many there are, on stderr."""
    for left in (*index.broken, *index.copies):
        say(str(left))
    if index.broken:
        say(f"left out because they cannot be used: {len(index.broken)}")
    if index.copies:
        say(f"left out because the table has the same image: {len(index.copies)}")


def _show(rows: Sequence[Row]) -> None:
    """Prints how many images each source has, by class and split; in a pipe, plain and as wide as it gets."""
    terminal = sys.stdout.isatty()  # rich takes FORCE_COLOR for a terminal
    console = Console(force_terminal=terminal, width=None if terminal else 10_000, highlight=False)
    console.print(_counted(rows))


def _counted(rows: Sequence[Row]) -> Table:
    order = {name: at for at, name in enumerate(DRAWN)}
    splits = sorted({row.split for row in rows}, key=lambda name: (order.get(name, len(order)), name))
    table = Table(box=None, pad_edge=False)
    for name in ("source", "class"):
        table.add_column(name)
    for name in (*splits, "all"):
        table.add_column(Text(visible(name)), justify="right")
    for (source, label), by_split in sorted(counts(rows).items()):
        numbers = [*(by_split[name] for name in splits), by_split.total()]
        table.add_row(Text(visible(source)), ("real", "ai")[label], *map(str, numbers))
    return table
