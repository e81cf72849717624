"""The result file of one device, written again after everything that was measured: a run may be cut off."""

import json
from pathlib import Path
from typing import Any

from gpu import json_files
from gpu.contender import Contender
from gpu.goals import PUBLISHED
from gpu.text import slug

Row = dict[str, Any]


class Results:
    """:param folder: None keeps them in memory alone
    :param facts: of the run: device, machine, model, settings
    """

    def __init__(self, folder: Path | None, facts: dict[str, Any]) -> None:
        other = "" if facts["model"] == PUBLISHED else f"-{facts['model']}"
        self._path = folder / f"gpu-{slug(facts['device']['name'])}{other}.json" if folder else None
        self.content: dict[str, Any] = {"benchmark": "gpu", "complete": False, **facts, "rows": [], "end_to_end": []}

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

    def write(self, *changed: Row) -> None:
        """All there is by now, in one step: the file is never half. Rows that changed are said, one line each."""
        for row in changed:
            print(json.dumps(json_files.rounded(row)), flush=True)  # noqa: T201
        if self._path is None:
            return
        json_files.write(self._path, self.content)

    def finish(self) -> None:
        """Nothing follows."""
        self.content["complete"] = True
        self.write()


def named(contender: Contender) -> Row:
    """Whose a row is."""
    return {"backend": contender.backend, "precision": contender.precision, "form": contender.form}


def failed(row: Row) -> bool:
    """Whether a row says why there are no figures: what is `missing`, or what `error` there was."""
    return "error" in row or "missing" in row
