"""A result file, written again after everything that was measured: a run may be cut off."""

import json
from pathlib import Path
from typing import Any

import json_files

Row = dict[str, Any]


class ResultFile:
    """:param path: None keeps it in memory alone
    :param facts: of the run: machine, model, settings
    """

    def __init__(self, path: Path | None, benchmark: str, facts: Row) -> None:
        self.path = path
        self.content: Row = {"benchmark": benchmark, "complete": False, **facts}

    def write(self, *changed: Row) -> None:
        """All there is by now, in one step: the file is never half. Rows that changed are said, one line each."""
        for row in changed:
            print(json.dumps(json_files.rounded(row)), flush=True)  # noqa: T201
        if self.path is not None:
            json_files.write(self.path, self.content)

    def finish(self) -> None:
        """Nothing follows."""
        self.content["complete"] = True
        self.write()
