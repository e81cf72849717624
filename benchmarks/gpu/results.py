"""The result file of one device."""

from pathlib import Path
from typing import Any

from goals import PUBLISHED
from result_file import ResultFile
from text import slug

from gpu.contender import Contender

Row = dict[str, Any]


class Results(ResultFile):
    """:param folder: None keeps them in memory alone
    :param facts: of the run: device, machine, model, settings
    """

    def __init__(self, folder: Path | None, facts: Row) -> None:
        other = "" if facts["model"] == PUBLISHED else f"-{facts['model']}"
        path = folder / f"gpu-{slug(facts['device']['name'])}{other}.json" if folder else None
        super().__init__(path, "gpu", {**facts, "rows": [], "end_to_end": []})

    @property
    def rows(self) -> list[Row]:
        """One a contender and batch size; one alone for a contender that cannot run."""
        rows: list[Row] = self.content["rows"]
        return rows

    def begin(self, contender: Contender, batch: int) -> Row:
        """A row that holds nothing but whose it is; what is measured is added to it."""
        row = {**named(contender), "batch": batch}
        self.rows.append(row)
        return row


def named(contender: Contender) -> Row:
    """Whose a row is."""
    return {"backend": contender.backend, "precision": contender.precision, "form": contender.form}


def failed(row: Row) -> bool:
    """Whether a row says why there are no figures: what is `missing`, or what `error` there was."""
    return "error" in row or "missing" in row
