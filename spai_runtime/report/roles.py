"""Roles: what each column of a row means, found only from the columns' names, which earlier runs also wrote."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spai_runtime.errors import SourceError
from spai_runtime.text import excerpt

REAL, ERROR = "real", "error"
FUSED = "fusion"


@dataclass(frozen=True)
class Verdict:
    """What one detector, or several together, say of an image.

    :param score: in [0, 1]; None if there is no score
    :param logit: None for several detectors together
    """

    score: float | None
    logit: float | None
    label: str


@dataclass(frozen=True)
class Roles:
    """The columns of a run, by what they mean.

    :param own: the columns of its CSV inputs
    :param detectors: for several detectors, the text before `_score` of each; [""] for one detector
    :param fused: whether several detectors have a score together
    """

    own: Sequence[str]
    detectors: Sequence[str]
    fused: bool

    @classmethod
    def of(cls, names: Sequence[str]) -> "Roles":
        """Find the roles.

        :param names: the names of all columns, in their order
        :raises SourceError: they are not those of rows that spai-run writes
        """
        own, results = _around(names, "path")
        if results[:3] == ["score", "logit", "label"]:
            return cls(own, [""], fused=False)
        groups = [
            name.removesuffix("_score") for name in results if name.endswith("_score") and name != f"{FUSED}_score"
        ]
        expected = [f"{group}_{part}" for group in groups for part in ("score", "logit", "label")]
        if not groups or results[: len(expected)] != expected:
            raise SourceError(
                "these are not rows that spai-run has written: columns path, score, logit, label are missing"
            )
        return cls(own, groups, fused=f"{FUSED}_score" in results)

    def verdicts(self, row: Mapping[str, Any]) -> Sequence[Verdict]:
        """The verdict of each detector, in the order of the columns.

        :raises SourceError: a cell that should be a number is not one
        """
        names = [f"{detector}_" if detector else "" for detector in self.detectors]
        return [
            Verdict(number(row[f"{name}score"]), number(row[f"{name}logit"]), _label(row[f"{name}label"]))
            for name in names
        ]

    def together(self, row: Mapping[str, Any]) -> Verdict:
        """The verdict of the fusion; or else of the one detector, or of the first that does not say `real`."""
        if self.fused:
            return Verdict(number(row[f"{FUSED}_score"]), None, _label(row[f"{FUSED}_label"]))
        said = self.verdicts(row)
        return next((verdict for verdict in said if verdict.label not in (REAL, "")), said[0])


def number(cell: Any) -> float | None:
    """Read a number.

    :param cell: a number or its text; None or "" gives None
    :raises SourceError: the cell holds anything else
    """
    if cell is None or cell == "":
        return None
    try:
        found = float(cell)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise SourceError(f"{excerpt(str(cell))} is no number: these are not rows that spai-run has written")
    return found


def _label(cell: Any) -> str:
    return excerpt(str(cell or ""))


def _around(names: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The names before and behind a name. :raises SourceError: it is not among them"""
    found = list(names)
    if name not in found:
        raise SourceError(f"these are not rows that spai-run has written: there is no column {name}")
    place = found.index(name)
    return found[:place], found[place + 1 :]
