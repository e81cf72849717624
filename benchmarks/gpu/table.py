"""The README's table of what was asked for on a GPU and what was measured: `python benchmarks/gpu/table.py` prints it.

Every figure is a row's of a result file; where there is none, the cell says why.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results"
ENGINES = ("ONNX Runtime", "TensorRT")
NOT_RUN = "not run"

Row = dict[str, Any]
Result = dict[str, Any]


def committed(folder: Path = RESULTS) -> list[Result]:
    """What the result files of GPUs hold, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("gpu-*.json"))]


def markdown(results: Sequence[Result]) -> str:
    """:param results: those of the published model are shown, a column each; none is a column of `not run`"""
    shown = [result for result in results if result["model"] == "vitb"]
    columns = [_device(result) for result in shown] or ["measured"]
    figures = [
        _line([what, asked, *([figure(result) for result in shown] or [NOT_RUN])]) for what, asked, figure in FIGURES
    ]
    parts = [[_line(["", "asked for", *columns]), "|---" * (2 + len(columns)) + "|", *figures]]
    parts += [part for result in shown for part in (_contenders(result), _runs(result)) if part]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _speed_up(result: Result) -> str:
    """Each at its own best batch size."""
    upstream = _best(result, "PyTorch", "fp32")
    if upstream is None:
        return _reason(result["rows"], "PyTorch", "fp32")

    def cell(row: Row) -> str:
        return f"{_ratio(row, upstream)} ({_number(row['tiles_per_s'])} to {_number(upstream['tiles_per_s'])} tiles/s)"

    return _by_engine(result, "fp16", cell)


def _of_ceiling(result: Result) -> str:
    def cell(row: Row) -> str:
        return f"{row['fraction_of_matmul']:.0%}" if "fraction_of_matmul" in row else f"{NOT_RUN}: no matmul rate"

    return _by_engine(result, "fp16", cell)


def _fp8(result: Result) -> str:
    half, quarter = (_best(result, "TensorRT", precision) for precision in ("fp16", "fp8"))
    if half is None or quarter is None:
        return _reason(result["rows"], "TensorRT", "fp8" if quarter is None else "fp16")
    return f"{_ratio(quarter, half)} ({_number(quarter['tiles_per_s'])} to {_number(half['tiles_per_s'])} tiles/s)"


def _end_to_end(result: Result) -> str:
    """Of the set that comes closest to the encoder; where decoding is the slower, that is what was measured."""

    def cell(name: str) -> str:
        rows = [row for row in result["end_to_end"] if row["backend"] == name]
        whole = [row for row in rows if "share_of_encoder" in row]
        if not whole:
            return _reason((*rows, *result["rows"]), name, "fp16")
        return "; ".join(f"{row['share_of_encoder']:.0%} ({row['images']}{_decoding(row)})" for row in whole)

    return "; ".join(f"{name} {cell(name)}" for name in ENGINES)


def _decoding(row: Row) -> str:
    slower = row["decode_images_per_s"] < row["encoder_images_per_s"]
    return f"; {row['workers']} threads decode slower than it encodes" if slower else ""


def _memory(result: Result) -> str:
    """The most of any engine's fp16, in `spai-run` or alone, with what CUDA itself takes."""
    batch = result["settings"]["batches"][0]

    def cell(name: str) -> str:
        rows = [row for row in (*result["rows"], *result["end_to_end"]) if _is(row, name, "fp16")]
        found = [row["memory_mb"] for row in rows if _whole(row) and row["batch"] == batch == row["default_batch"]]
        if not found:
            return _reason(rows, name, "fp16")
        return f"{(max(found) + result['device']['context_mb']) / 1e3:.1f} GB"

    return "; ".join(f"{name} {cell(name)}" for name in ENGINES)


FIGURES: Sequence[tuple[str, str, Callable[[Result], str]]] = (
    ("ViT-B/16 encoder in fp16, against upstream's formulation in eager fp32 PyTorch, tiles/s", "≥ 8 ×", _speed_up),
    ("the same, as a share of the GPU's own rate of an fp16 matrix product", "≥ 50%", _of_ceiling),
    ("fp8 against fp16, TensorRT, tiles/s", "≥ 1.4 ×", _fp8),
    ("`spai-run` from JPEGs on disk, as a share of its encoder's own rate", "≥ 90%", _end_to_end),
    ("GPU memory at the default batch, fp16", "< 8 GB", _memory),
)


def _contenders(result: Result) -> list[str]:
    """Every contender at the first batch size, and whatever could not be run."""
    batch = result["settings"]["batches"][0]
    rows = [row for row in result["rows"] if row["batch"] == batch]
    head = [f"{_device(result)}, {batch} tiles a launch", "p50 / p99", "tiles/s", "of matmul", "memory", "differs by"]
    return [_line(head), "|---" * len(head) + "|", *(_line([_name(row), *_cells(row)]) for row in rows)] if rows else []


def _cells(row: Row) -> list[str]:
    if not _whole(row):
        return [_why(row), "", "", "", ""]
    share = f"{row['fraction_of_matmul']:.0%}" if "fraction_of_matmul" in row else NOT_RUN
    return [
        f"{row['latency_p50_ms']:.3g} / {row['latency_p99_ms']:.3g} ms",
        _number(row["tiles_per_s"]),
        share,
        f"{row['memory_mb'] / 1e3:.1f} GB",
        f"{row['largest_difference']:.1e}",
    ]


def _runs(result: Result) -> list[str]:
    """From JPEGs on disk: the run, its encoder alone, decoding alone."""
    rows = result["end_to_end"]
    head = [f"{_device(result)}, images/s from JPEGs", "`spai-run`", "encoder alone", "decoding alone", "threads"]
    return [_line(head), "|---" * len(head) + "|", *(_line(_run(row)) for row in rows)] if rows else []


def _run(row: Row) -> list[str]:
    name = f"{_name(row)}, {row['images']}"
    if "images_per_s" not in row:
        return [name, _why(row), "", "", ""]
    rates = [_number(row[f"{kind}images_per_s"]) for kind in ("", "encoder_", "decode_")]
    return [name, *rates, str(row["workers"])]


def _by_engine(result: Result, precision: str, cell: Callable[[Row], str]) -> str:
    found = {name: _best(result, name, precision) for name in ENGINES}
    return "; ".join(
        f"{name} {cell(row) if row else _reason(result['rows'], name, precision)}" for name, row in found.items()
    )


def _best(result: Result, backend: str, precision: str) -> Row | None:
    """The most tiles/s of any batch size and form."""
    rows = [row for row in result["rows"] if _is(row, backend, precision) and _whole(row)]
    return max(rows, key=lambda row: row["tiles_per_s"], default=None)


def _is(row: Row, backend: str, precision: str) -> bool:
    return bool(row["backend"] == backend and row["precision"] == precision)


def _whole(row: Row) -> bool:
    """Whether everything about it was measured."""
    return ("tiles_per_s" in row or "images_per_s" in row) and "error" not in row and "missing" not in row


def _reason(rows: Iterable[Row], backend: str, precision: str) -> str:
    """Why there is no figure: what the first row that failed says."""
    return next((_why(row) for row in rows if _is(row, backend, precision) and not _whole(row)), NOT_RUN)


def _why(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    return f"{NOT_RUN}: {row['missing']}" if "missing" in row else NOT_RUN


def _name(row: Row) -> str:
    return " ".join(filter(None, (row["backend"], row["precision"], row["form"] and f"({row['form']})")))


def _device(result: Result) -> str:
    return f"{result['device']['name']}{'' if result['complete'] else ' (run cut short)'}"


def _ratio(fast: Row, slow: Row) -> str:
    return f"{fast['tiles_per_s'] / slow['tiles_per_s']:.3g} ×"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(markdown(committed()), end="")  # noqa: T201
