"""The result file of one device, written again after everything that was measured: a run may be cut off."""

import json
import re
from pathlib import Path
from typing import Any

from gpu.contender import Contender

Row = dict[str, Any]

PUBLISHED = "vitb"  # results of any other model are told apart by the file's name, and no table takes them


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
            print(json.dumps(rounded(row)), flush=True)  # noqa: T201
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".part")
        draft.write_text(json.dumps(rounded(self.content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(self._path)

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


def slug(name: str) -> str:
    """Of a device: `NVIDIA H200` → `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def first_line(error: BaseException) -> str:
    """Of whatever went wrong: its type and what it says first."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {pathless(said[0])}" if said else type(error).__name__


def pathless(text: str) -> str:
    """Of every absolute path its last part: where files lie is nobody's business."""
    return re.sub(r"(?<![\w:/.])/(?:[^\s/'\":,;]+/)+([^\s/'\":,;]+)", r"\1", text)


def rounded(value: Any) -> Any:
    """Every fraction to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
