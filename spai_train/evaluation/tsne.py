"""A map of what a detector's head sees: t-SNE of image embeddings, as a table and as a picture."""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from spai_runtime.errors import UserError
from spai_runtime.files.atomic import atomic_write
from spai_train.checkpoint import Checkpoint
from spai_train.data.table import GENERATED, REAL, Row
from spai_train.evaluation.embedding import Embedded, embeddings
from spai_train.evaluation.legends import legend_beside, short
from spai_train.evaluation.plots import COLOURS
from spai_train.torch_engine import find_device

Floats = NDArray[np.float32]

COLUMNS = ("name", "class", "split", "source", "x", "y")
MINIMUM = 3  # images: fewer have no neighbours to keep
CLASSES = {REAL: ("real", "o"), GENERATED: ("AI-generated", "^")}
FILLS = ("full", "none", "left")  # of the markers: all colours in one, then in the next
ENTRIES = 24  # of a legend's column
AXES_WIDTH = 6.5  # inches, at least


class MapError(UserError):
    """A map that cannot be drawn since there are too few images, in one sentence."""


def sample(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """At most `limit` rows of each source, drawn at random, in the order of the table."""
    if limit is None:
        return list(rows)
    taken, chosen = Counter[str](), []
    for index in np.random.default_rng(seed).permutation(len(rows)).tolist():
        taken[rows[index].source] += 1
        if taken[rows[index].source] <= limit:
            chosen.append(index)
    return [rows[index] for index in sorted(chosen)]


def embed(checkpoint: Checkpoint, rows: Sequence[Row], device: str = "auto") -> Iterator[Embedded]:
    """The embeddings that the checkpoint's model gives, in the order of the rows.

    :param device: `auto` is the first GPU, else the CPU
    """
    device = find_device(device)
    return embeddings(checkpoint.model().to(device), rows, device)


def fitting(perplexity: float, images: int) -> float:
    """The perplexity, lowered to a third of the number of other images where it is more.

    A third is the limit of van der Maaten's implementations. scikit-learn's own limit is all other images, with which
    nothing could be told apart.
    """
    return min(perplexity, max(1.0, (images - 1) / 3))


def project(embeddings: Floats, perplexity: float, seed: int) -> Floats:
    """:param embeddings: (B, D)
    :param perplexity: below B; how many neighbours an image is kept near to
    :returns: (B, 2), whose distances mean little but between neighbours
    :raises MapError: fewer than MINIMUM images
    """
    if len(embeddings) < MINIMUM:
        raise MapError(f"a map needs {MINIMUM} images that can be read, and there are {len(embeddings)}: name more")
    points: Floats = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)
    return points


def write_map(folder: Path, rows: Sequence[Row], points: Floats, perplexity: float) -> None:
    """Writes tsne.csv, which has COLUMNS, and tsne.png; each appears under its name when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "tsne.csv"
    with atomic_write(table) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, (x, y) in zip(rows, points.tolist(), strict=True):
            writer.writerow((row.name, row.label, row.split, row.source, f"{x:.6g}", f"{y:.6g}"))
    with atomic_write(folder / "tsne.png") as part:
        draw(rows, points, perplexity).savefig(part, format="png", dpi=150)


def draw(rows: Sequence[Row], points: Floats, perplexity: float) -> Figure:
    """Draws the map with a colour and a fill for each source and a marker for each class."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    sources = list(dict.fromkeys(row.source for row in rows))
    looks = dict(zip(sources, itertools.cycle(itertools.product(FILLS, COLOURS)), strict=False))
    groups = np.array([(sources.index(row.source), row.label) for row in rows])
    for label, (name, marker) in CLASSES.items():
        for index, source in enumerate(sources):
            x, y = points[(groups == (index, label)).all(axis=1)].T
            fill, colour = looks[source]
            if x.size:
                title = f"{name}: {short(source)} ({x.size:,})"
                axes.plot(x, y, marker, color=colour, fillstyle=fill, markersize=5, alpha=0.75, label=title)
    axes.set(xticks=[], yticks=[], title=f"t-SNE of {len(rows):,} image embeddings, perplexity {perplexity:.3g}")
    axes.set_aspect("equal", adjustable="datalim")
    columns = -(-len(axes.lines) // ENTRIES)
    legend_beside(figure, *axes.get_legend_handles_labels(), columns, AXES_WIDTH)
    return figure
