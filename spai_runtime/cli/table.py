"""Rows for people: what `spai-run` shows on a terminal when no output is named."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = f"{'score':>7}  {'label':<5}  {'size':>11}  {'views':>5}  image"


class Table:
    """Fixed columns, one line an image, so that rows can be shown as they come."""

    def header(self, names: Sequence[str]) -> str:  # noqa: ARG002
        return f"{_HEADER}\n{'─' * min(shutil.get_terminal_size().columns, 72)}\n"

    def encode(self, row: Mapping[str, Any]) -> str:
        path = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(row["path"]))  # no escape sequences
        size = f"{row['width']}×{row['height']}" if row["width"] else ""
        if row["error"]:
            return f"{'—':>7}  {'error':<5}  {size:>11}  {'':>5}  {path}: {row['error']}\n"
        return f"{row['score']:>7.4f}  {row['label']:<5}  {size:>11}  {row['views']:>5}  {path}\n"
