"""Rows: a result as named cells, and the formats in which rows are written and read back."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from spai_runtime.errors import OutputError
from spai_runtime.files.sources import Item
from spai_runtime.results import Result

RESULT_COLUMNS = ("path", "score", "logit", "label", "width", "height", "views", "error")

Row = dict[str, Any]


def row_of(result: Result, columns: Sequence[str]) -> Row:
    """A result as a row: the input's own columns, then RESULT_COLUMNS; None is an empty cell.

    :param columns: own columns of all inputs; one that is named like a result column becomes `input_<name>`
    """
    score = result.score
    values = (
        result.item.name,
        score and score.score,
        score and score.logit,
        score and score.label,
        result.width,
        result.height,
        score and len(score.layout),
        result.error or None,
    )
    return {**own_cells(result.item, columns), **dict(zip(RESULT_COLUMNS, values, strict=True))}


class Format(Protocol):
    """How rows are written."""

    def header(self, names: Sequence[str]) -> str: ...

    def encode(self, row: Row) -> str: ...


class FileFormat(Format, Protocol):
    """How rows are written to a file, and read back to resume."""

    def decode(self, lines: Iterator[str], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Rows, consuming no more lines than each of them takes; ends at the first that is not whole."""


class Csv:
    """RFC 4180 quoting, UTF-8, lines ending in a newline alone, numbers as they are, an empty cell for None."""

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
    """One JSON object a line, null for None."""

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


FORMATS: dict[str, FileFormat] = {"csv": Csv(), "jsonl": JsonLines()}


def format_of(path: Path) -> FileFormat:
    """:raises OutputError: a suffix that is neither .csv nor .jsonl"""
    try:
        return FORMATS[path.suffix.lower().removeprefix(".")]
    except KeyError:
        raise OutputError(f"cannot write {path}: name it .csv or .jsonl") from None


def names_of(columns: Sequence[str]) -> list[str]:
    """Names of all columns; an own one that is named like a result or like another one is prefixed until it is not."""
    own: list[str] = []
    for column in columns:
        name = column
        while name in (*RESULT_COLUMNS, *own):
            name = f"input_{name}"
        own.append(name)
    return [*own, *RESULT_COLUMNS]


def own_cells(item: Item, columns: Sequence[str]) -> Row:
    """The cells that an item brings along from its CSV."""
    return {name: item.columns.get(column) for name, column in zip(names_of(columns), columns, strict=False)}


def is_row_of(row: Mapping[str, Any], item: Item, columns: Sequence[str]) -> bool:
    """Whether a row read back is this item's."""
    expected = {**own_cells(item, columns), "path": item.name}
    return all((row[name] or "") == (value or "") for name, value in expected.items())


def _csv_line(cells: Sequence[Any]) -> str:
    class Line:
        text = ""

        def write(self, text: str) -> None:
            self.text = text

    line = Line()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # so that a carriage return within a cell is quoted
    return line.text.removesuffix("\r\n") + "\n"
