"""What was asked for on a GPU and what was measured, as docs/benchmarks.md has it; `python benchmarks/gpu/table.py`.

Every figure is made of rows of a result file; where there is none, the cell says why.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where this package lies

import json_files
from goals import NOT_RUN, PUBLISHED, Goal, Result, Row, number
from pipe_tables import table

from gpu.goals import GOALS, whole, why

RESULTS = Path(__file__).parent.parent / "results"


def committed(folder: Path = RESULTS) -> list[Result]:
    """What the result files of GPUs hold, by name."""
    return [json_files.read(path) for path in sorted(folder.glob("gpu-*.json"))]


def markdown(results: Sequence[Result]) -> str:
    """:param results: those of the published model are shown, a column each; none is a column of `not run`"""
    shown = [result for result in results if result["model"] == PUBLISHED]
    columns = [_device(result) for result in shown] or ["measured"]
    goals = [[goal.what, goal.asked, *([_figures(result, goal) for result in shown] or [NOT_RUN])] for goal in GOALS]
    parts = [table(["", "asked for", *columns], goals)]
    parts += [part for result in shown for part in (_contenders(result), _runs(result)) if part]
    return "\n\n".join(parts) + "\n"


def _figures(result: Result, goal: Goal) -> str:
    return "; ".join(f"{engine} {goal.figure(result, engine).text}" for engine in goal.engines_of(result))


def _contenders(result: Result) -> str:
    """Every contender at the first batch size, and whatever could not be run. Upstream takes part in several steps."""
    batch = result["settings"]["batches"][0]
    rows = {_name(row): row for row in reversed(result["rows"]) if row["batch"] == batch}
    head = [f"{_device(result)}, {batch} tiles a launch", "p50 / p99", "tiles/s", "of matmul", "memory", "differs by"]
    return table(head, ([name, *_cells(row)] for name, row in reversed(rows.items()))) if rows else ""


def _cells(row: Row) -> list[str]:
    if not whole(row):
        return [why(row), "", "", "", ""]
    share = f"{row['fraction_of_matmul']:.0%}" if "fraction_of_matmul" in row else NOT_RUN
    return [
        f"{row['latency_p50_ms']:.3g} / {row['latency_p99_ms']:.3g} ms",
        number(row["tiles_per_s"]),
        share,
        f"{row['memory_mb'] / 1e3:.1f} GB",
        f"{row['largest_difference']:.1e}",
    ]


def _runs(result: Result) -> str:
    """From JPEGs on disk: the run, its encoder alone, decoding alone."""
    rows = result["end_to_end"]
    head = [f"{_device(result)}, images/s from JPEGs", "`spai-run`", "encoder alone", "decoding alone", "threads"]
    return table(head, map(_run, rows)) if rows else ""


def _run(row: Row) -> list[str]:
    name = f"{_name(row)}, {row['images']}"
    if not whole(row):
        return [name, why(row), "", "", ""]
    rates = [number(row[f"{kind}images_per_s"]) for kind in ("", "encoder_", "decode_")]
    return [name, *rates, str(row["workers"])]


def _name(row: Row) -> str:
    """A compiler that was to record CUDA graphs and did not is named so; its rate is one all the same."""
    unrecorded = row["backend"] == "torch.compile" and row.get("graph") is False
    form = ", ".join(filter(None, (row["form"], "no CUDA graph" if unrecorded else "")))
    return " ".join(filter(None, (row["backend"], row["precision"], form and f"({form})")))


def _device(result: Result) -> str:
    return f"{result['device']['name']}{'' if result['complete'] else ' (run cut short)'}"


if __name__ == "__main__":
    print(markdown(committed()), end="")  # noqa: T201
