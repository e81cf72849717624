"""The result file of one processor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goals import PUBLISHED, Row
from result_file import ResultFile
from text import first_line, slug

from cpu.contender import Contender


class Results(ResultFile):
    """:param folder: None keeps them in memory alone
    :param facts: of the run: processor, machine, model, settings
    """

    def __init__(self, folder: Path | None, facts: Row) -> None:
        other = "" if facts["model"] == PUBLISHED else f"-{facts['model']}"
        path = folder / f"cpu-{slug(facts['processor']['name'])}{other}.json" if folder else None
        super().__init__(path, "cpu", {**facts, "rows": []})

    @property
    def rows(self) -> list[Row]:
        """One a contender."""
        rows: list[Row] = self.content["rows"]
        return rows

    def begin(self, contender: Contender) -> Row:
        """A row with whose it is and, where the machine cannot have it, `absent`; parts are added to it."""
        row: Row = {"backend": contender.label, "precision": contender.precision}
        if reason := contender.absent():
            row["absent"] = reason
        self.rows.append(row)
        return row

    @contextmanager
    def part(self, row: Row, name: str) -> Iterator[Row]:
        """Figures of a part of a row, which is written when they are there."""
        figures: Row = row.setdefault(name, {})
        with said_in(figures):
            yield figures
        self.write({"backend": row["backend"], "precision": row["precision"], name: figures})


@contextmanager
def said_in(figures: Row) -> Iterator[None]:
    """Whatever goes wrong is `error` among the figures, and the others go on."""
    try:
        yield
    except Exception as error:  # one contender's failure is its row
        figures["error"] = first_line(error)
