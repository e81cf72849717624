"""Cells that a spreadsheet would run, and their guard from OWASP (owasp.org/www-community/attacks/CSV_Injection)."""

import re

_RUN = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # as a formula begins, or what leads to one
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def guarded(cell: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run; a number stays a number."""
    return f"'{cell}" if cell.startswith(_RUN) and not _NUMBER.fullmatch(cell) else cell


def unguarded(cell: str) -> str:
    """The text that `guarded` turned into this cell."""
    bare = cell.removeprefix("'")
    return bare if cell != bare and guarded(bare) == cell else cell
