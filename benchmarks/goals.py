"""What a benchmark was asked for, and what its result file has of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import ge
from typing import Any

Row = dict[str, Any]
Result = dict[str, Any]

NOT_RUN = "not run"
PUBLISHED = "vitb"  # results of any other model are told apart by the file's name, and no table takes them


@dataclass(frozen=True)
class Figure:
    """:param value: None where nothing was measured
    :param text: of the value and what it is made of, or why there is none
    """

    value: float | None
    text: str


@dataclass(frozen=True)
class Goal:
    """:param figure: of a result and one of the engines
    :param holds: of a value and the bound: whether the goal is met
    """

    what: str
    asked: str
    bound: float
    figure: Callable[[Result, str], Figure]
    engines: Sequence[str]
    holds: Callable[[float, float], bool] = ge

    def engines_of(self, result: Result) -> Sequence[str]:  # noqa: ARG002
        """Those that the goal is for."""
        return self.engines

    def met(self, value: float | None) -> bool | None:
        """None where there is no value."""
        return None if value is None else self.holds(value, self.bound)


def summary(result: Result, goals: Sequence[Goal]) -> list[Row]:
    """One entry a goal and engine: `value`, `met`, and in words `measured`."""
    found = []
    for goal in goals:
        for engine in goal.engines_of(result):
            figure = goal.figure(result, engine)
            entry = {"goal": goal.what, "asked": goal.asked, "engine": engine, "value": figure.value}
            found.append({**entry, "met": goal.met(figure.value), "measured": figure.text})
    return found


def lines(entries: Iterable[Row]) -> list[str]:
    """Of a summary, for a terminal."""
    words = {True: "met    ", False: "missed ", None: "not run"}
    return [
        f"{words[entry['met']]}  {entry['asked']:>7}  {entry['engine']}: {entry['measured']}: {entry['goal']}"
        for entry in entries
    ]


def number(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
