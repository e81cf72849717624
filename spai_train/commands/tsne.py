"""spai-train tsne"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, say, show
from spai_runtime.files.sources import printable
from spai_train.commands.edges import DetectorOption, TowerOption, extra, writable

__all__ = ["EPILOG", "run"]

EPILOG = "Exit code: 0 all images are on the map; 3 some could not be read; 2 usage, or no map could be made."


def run(
    tables: Annotated[list[Path], typer.Argument(metavar="CSV...", help="CSV with image,class[,split][,source].")],
    ckpt: Annotated[Path, typer.Option(help="Any checkpoint that spai-export takes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tsne.csv and tsne.png.")],
    detector: DetectorOption = None,
    tower: TowerOption = None,
    split: Annotated[str | None, typer.Option(help="Split whose images are mapped. Without it, all.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that names are relative to. Without it, the folder of each CSV.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many images of each source are drawn at random.")
    ] = None,
    perplexity: Annotated[float, typer.Option(min=1, help="About how many neighbours each image keeps.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw and of the map.")] = 0,
    device: Annotated[str, typer.Option("--device", "-d", help="Where to run: auto, cpu or cuda:0.")] = "auto",
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Map the embeddings of labelled images onto a plane: what the detector takes for alike lies near."""
    with extra():
        import numpy as np  # noqa: PLC0415  --help must work without torch

        from spai_train.checkpoint import load_checkpoint  # noqa: PLC0415
        from spai_train.data.table import read_tables  # noqa: PLC0415
        from spai_train.evaluation import tsne  # noqa: PLC0415
    rows = tsne.sample(read_tables(tables, split, root), limit, seed)
    images = list(tsne.embed(load_checkpoint(ckpt, detector, tower), rows, device))
    for image in images:
        if image.embedding is None:
            say(f"skipped {printable(image.row.name)}: {image.error}")
    known = [(image.row, image.embedding) for image in images if image.embedding is not None]
    rows, embeddings = [row for row, _ in known], np.array([embedding for _, embedding in known])
    fitting = tsne.fitting(perplexity, len(rows))
    points = tsne.project(embeddings, fitting, seed)
    if fitting < perplexity:
        say(f"perplexity {fitting:.3g} instead of {perplexity:g}: there are {len(rows)} images")
    with writable(output):
        tsne.write_map(output, rows, points, fitting)
    show(output / "tsne.png")
    return EXIT_SOME_ERRORS if len(rows) < len(images) else 0
