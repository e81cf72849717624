"""Rows: a result as named cells, and the formats in which rows are written and read back."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

from spai_runtime.errors import OutputError
from spai_runtime.files.sources import Item
from spai_runtime.files.spreadsheet import guarded
from spai_runtime.fusion import Fusion
from spai_runtime.results import Result, Score

OF_A_DETECTOR = ("score", "logit", "label")
RESULT_COLUMNS = ("path", *OF_A_DETECTOR, "width", "height", "views", "error")  # of one detector

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The columns of a run: first those of its inputs, then what the run says of each image.

    One detector has RESULT_COLUMNS. Several detectors have no `views`, since each has its own number of views. Each has
    OF_A_DETECTOR under its name; if they are fused, `fusion_score` and `fusion_label` follow.

    :param own: the inputs' own columns; one that is named like a result or like another one becomes `input_<name>`
    :param detectors: the names of several, in the order of `Result.scores`; () if there is one detector
    :param fusion: the fusion of several detectors, if they are fused
    :param spreadsheet: whether to guard names and cells of text, so that no spreadsheet runs them
    """

    own: Sequence[str]
    detectors: Sequence[str] = ()
    fusion: Fusion | None = None
    spreadsheet: bool = False

    def __post_init__(self) -> None:
        assert len(self.detectors) != 1
        assert self.detectors or not self.fusion

    @cached_property
    def names(self) -> list[str]:
        """The names of all columns, all different."""
        return [*self._own_names, *self._result_names]

    @cached_property
    def detector_names(self) -> list[str]:
        """The names of several detectors as the columns have them: letters, digits, `-` and `_`, all different."""
        names: list[str] = []
        for detector in self.detectors:
            name = self._cell("".join(c if c.isalnum() or c in "-_" else "_" for c in detector) or "detector")
            taken = {*names, "fusion"}
            numbered = (f"{name}_{number}" for number in count(2))
            names.append(next(free for free in chain((name,), numbered) if free not in taken))
        return names

    def row_of(self, result: Result) -> Row:
        """Make a row of a result; None is an empty cell."""
        return {**self._own_cells(result.item), **self._result_cells(result)}

    def is_row_of(self, row: Mapping[str, Any], item: Item) -> bool:
        """Whether a row that was read back belongs to this item."""
        expected = {**self._own_cells(item), "path": self._cell(item.name)}
        return all((row[name] or "") == (value or "") for name, value in expected.items())

    def label_of(self, result: Result) -> str:
        """The label that an image counts as: `error` if anything is wrong with it, otherwise the label of the fusion.

        Without fusion it is `real`, unless a detector says something else.
        """
        return self.label_in(self._result_cells(result))

    def label_in(self, row: Mapping[str, Any]) -> str:
        """The label that an image counts as, like `label_of`, from a row that was read back."""
        if row["error"]:
            return "error"
        labels = (row[name] for name in self._label_names)
        return next((label for label in labels if label not in ("real", "", None)), "real")

    @cached_property
    def _own_names(self) -> list[str]:
        names = dict.fromkeys(self._result_names)
        for column in self.own:
            name = self._cell(column)
            while name in names:
                name = f"input_{name}"
            names[name] = None
        return [*names][len(self._result_names) :]

    @cached_property
    def _result_names(self) -> list[str]:
        if not self.detectors:
            return [*RESULT_COLUMNS]
        groups = [f"{detector}_{name}" for detector in self.detector_names for name in OF_A_DETECTOR]
        fused = ["fusion_score", "fusion_label"] if self.fusion else []
        return ["path", *groups, *fused, "width", "height", "error"]

    @cached_property
    def _label_names(self) -> list[str]:
        """The names of the columns that decide how an image is counted."""
        if self.fusion:
            return ["fusion_label"]
        return [f"{detector}_label" for detector in self.detector_names] or ["label"]

    def _own_cells(self, item: Item) -> Row:
        return dict(zip(self._own_names, map(self._cell, map(item.columns.get, self.own)), strict=True))

    def _result_cells(self, result: Result) -> Row:
        scores = result.scores or (None,) * max(1, len(self.detectors))
        groups = [cell for score in scores for cell in _score_cells(score)]
        views = [] if self.detectors else [result.score and len(result.score.layout)]
        size = result.width, result.height
        cells = result.item.name, *groups, *self._fused_cells(scores), *size, *views, result.error or None
        return dict(zip(self._result_names, map(self._cell, cells), strict=True))

    def _cell(self, value: Any) -> Any:
        return guarded(value) if self.spreadsheet and isinstance(value, str) else value

    def _fused_cells(self, scores: Sequence[Score | None]) -> tuple[float | str | None, ...]:
        """The fused score and label; None if a detector has no score, since that of the others is another number."""
        if self.fusion is None:
            return ()
        log_odds = [score.log_odds for score in scores if score]
        if len(log_odds) < len(scores):
            return None, None
        fused = self.fusion.fuse(log_odds)
        return fused.score, fused.label


def _score_cells(score: Score | None) -> tuple[float | str | None, ...]:
    return (None, None, None) if score is None else (score.score, score.logit, score.label)


class Format(Protocol):
    """A format in which rows are written."""

    def header(self, names: Sequence[str]) -> str: ...

    def encode(self, row: Row) -> str: ...


class FileFormat(Format, Protocol):
    """A format in which rows are written to a file, and read back to resume."""

    def decode(self, lines: Iterator[str], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Read rows, each from no more lines than it takes; stop at the first row that is not complete."""


class Csv:
    """CSV: RFC 4180 quoting, UTF-8, a newline alone after each line, numbers unquoted, an empty cell for None."""

    def header(self, names: Sequence[str]) -> str:
        return _csv_line(names)

    def encode(self, row: Row) -> str:
        return _csv_line(["" if value is None else value for value in row.values()])

    def decode(self, lines: Iterator[str], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        reader = csv.reader(lines, strict=True)
        try:
            if next(reader, None) != list(names):
                return
            yield {}  # the header is whole
            for cells in reader:
                if len(cells) != len(names):
                    return
                yield dict(zip(names, cells, strict=True))
        except csv.Error:
            return


class JsonLines:
    """JSON Lines: one JSON object on each line, null for None."""

    def header(self, names: Sequence[str]) -> str:  # noqa: ARG002
        return ""

    def encode(self, row: Row) -> str:
        return json.dumps(row, ensure_ascii=False) + "\n"

    def decode(self, lines: Iterator[str], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        yield {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                return
            if list(row) != list(names):
                return
            yield row


FILE_FORMATS: dict[str, FileFormat] = {"csv": Csv(), "jsonl": JsonLines()}


def format_of(path: Path) -> FileFormat:
    """The format for a file's suffix. :raises OutputError: the suffix is neither .csv nor .jsonl"""
    try:
        return FILE_FORMATS[path.suffix.lower().removeprefix(".")]
    except KeyError:
        raise OutputError(f"cannot write {path}: name it .csv or .jsonl") from None


def _csv_line(cells: Sequence[Any]) -> str:
    class Line:
        text = ""

        def write(self, text: str) -> None:
            self.text = text

    line = Line()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # so that a carriage return within a cell is quoted
    return line.text.removesuffix("\r\n") + "\n"
