"""Rows for people: the table that `spai-run` shows on a terminal when no output is named."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spai_runtime.files.rows import Columns
from spai_runtime.text import visible

SCORE = 7  # characters that a score takes at least
NAME = 12  # and the name of a detector above its scores at most


class Table:
    """A table with fixed columns and one line for each image, so that rows can be shown as they come.

    One detector has its score and the number of its views; with several, each has its score, and then comes the
    fused score.

    :param threshold: the threshold that decides labels, shown above the rows; `positive` is the label of a score
        above it
    """

    def __init__(self, columns: Columns, threshold: float, positive: str) -> None:
        self._columns = columns
        self._rule = (
            f"The label is {positive} where the {'fused ' if columns.fusion else ''}score is above {threshold:g}."
        )
        self._scores = {f"{name}_score": visible(_cut(name)) for name in columns.detector_names} or {"score": "score"}
        self._scores |= {"fusion_score": "fused"} if columns.fusion else {}
        self._views = [] if columns.detectors else ["views"]

    def header(self, names: Sequence[str]) -> str:  # noqa: ARG002
        titles = self._line(self._scores.values(), "label", "size", self._views, "image")
        return f"{self._rule}\n{titles}{'─' * min(shutil.get_terminal_size().columns, 72)}\n"

    def encode(self, row: Mapping[str, Any]) -> str:
        scores = ["—" if row[name] is None else f"{row[name]:.4f}" for name in self._scores]
        size = f"{row['width']}×{row['height']}" if row["width"] else ""
        views = [str(row[name] or "") for name in self._views]
        image = visible(f"{row['path']}: {row['error']}" if row["error"] else str(row["path"]))
        return self._line(scores, self._columns.label_in(row), size, views, image)

    def _line(self, scores: Iterable[str], label: str, size: str, views: Iterable[str], image: str) -> str:
        widths = [max(SCORE, len(title)) for title in self._scores.values()]
        cells = [f"{score:>{width}}" for score, width in zip(scores, widths, strict=True)]
        return "  ".join([*cells, f"{label:<5}", f"{size:>11}", *(f"{cell:>5}" for cell in views), image]) + "\n"


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
