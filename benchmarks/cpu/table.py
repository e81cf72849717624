"""The tables of CPUs in docs/benchmarks.md: `python benchmarks/cpu/table.py` prints what is committed.

Every figure is one of a result file; where there is none, the cell says why.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where this package lies

import json_files
from goals import NOT_RUN, PUBLISHED, Goal, Result, Row
from pipe_tables import table

from cpu.goals import GOALS, why
from cpu.settings import BESIDE, CORES, ENCODER, LATENCY, RUN, SCORES, START

RESULTS = Path(__file__).parent.parent / "results"
HEAD = (
    "tiles/s",
    "× PyTorch",
    "Δscore",
    "ΔAUC",
    "1 MP on 1 core, p50 / p99",
    "on 2 cores",
    "memory",
    "second start",
    "`spai-run` / encoder",
    "images/s",
    "Community Forensics",
)


def committed(folder: Path = RESULTS) -> list[Result]:
    """What the result files of CPUs hold, by name."""
    return [json_files.read(path) for path in sorted(folder.glob("cpu-*.json"))]


def markdown(results: Sequence[Result]) -> str:
    """:param results: of which those of the published model are shown"""
    return tables([result for result in results if result["model"] == PUBLISHED])


def tables(results: Sequence[Result]) -> str:
    """:param results: two tables each; none is one that has nothing but what is asked for"""
    parts = [part for result in results for part in (_goals(result), _contenders(result))]
    return "\n\n".join(parts or [_goals(None)]) + "\n"


def _goals(result: Result | None) -> str:
    """A column an engine."""
    engines = list(dict.fromkeys(engine for goal in GOALS for engine in goal.engines))
    found = {(goal.what, engine): _goal(goal, engine, result) for goal in GOALS for engine in goal.engines}
    whats = dict.fromkeys(goal.what for goal in GOALS)
    head = _processor(result) if result else ""
    return table([head, *engines], [[what, *(found.get((what, engine), "") for engine in engines)] for what in whats])


def _goal(goal: Goal, engine: str, result: Result | None) -> str:
    return f"{goal.figure(result, engine).text if result else NOT_RUN} ({goal.asked})"


def _contenders(result: Result) -> str:
    return table([_processor(result), *HEAD], [_cells(row) for row in result["rows"]])


def _cells(row: Row) -> list[str]:
    name = f"{row['backend']} {row['precision']}"
    if "absent" in row:
        return [name, why(row, ENCODER), *[""] * (len(HEAD) - 1)]
    return [
        name,
        *_of(row, ENCODER, "{tiles_per_s:.3g} ({batch} at once)", "{ratio:.3g}"),
        *_of(row, SCORES, "{score_difference:.1e}", "{auc_difference:.1g}"),
        *_of(row, LATENCY, *(f"{{{name}[p50_s]:.3g}} / {{{name}[p99_s]:.3g}} s" for name in CORES)),
        *_of(row, START, "{peak_mb:.0f} MB", "{second_start_s:.2f} s"),
        *_of(row, RUN, "{against_encoder:.3f}", "{images_per_s:.3g}"),
        *_of(row, BESIDE, "{images_per_s:.3g}"),
    ]


def _of(row: Row, part: str, *texts: str) -> list[str]:
    """A cell each of a part: what went wrong is in the first; what was not measured is empty."""
    figures = row.get(part, {})
    if "error" in figures:
        return [why(row, part), *[""] * (len(texts) - 1)]
    return [_filled(text, figures) for text in texts]


def _filled(text: str, figures: Row) -> str:
    try:
        return text.format_map(figures)
    except KeyError:
        return ""


def _processor(result: Result) -> str:
    of, cut_short = result["processor"], "" if result["complete"] else " (run cut short)"
    return f"{of['name']} ({', '.join(of['flags'])}), {of['cores']} cores{cut_short}"


if __name__ == "__main__":
    print(markdown(committed()), end="")  # noqa: T201
