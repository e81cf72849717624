"""What was asked for on a GPU, and what a result file has of it: `summary` goes into the file, table.py shows it.

A figure is made of rows of the published model in which everything was measured. An engine's row in which CUDA graphs
were not replayed is none of them: it measures something that users do not get.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any

import goals
from goals import NOT_RUN, Figure, Goal, Result, Row, number

ENGINES = ("ONNX Runtime", "TensorRT")
RTX = "TensorRT for RTX"  # whose plans few GPUs of a data centre run: it counts where it has run


@dataclass(frozen=True)
class GpuGoal(Goal):
    """One of every engine that runs on the result's GPU."""

    engines: Sequence[str] = ENGINES

    def engines_of(self, result: Result) -> Sequence[str]:
        """See `Goal`."""
        ran = any(row["backend"] == RTX and "tiles_per_s" in row for row in result["rows"])
        return [*self.engines, RTX] if ran else self.engines


def summary(result: Result) -> list[dict[str, Any]]:
    """See `goals.summary`."""
    return goals.summary(result, GOALS)


def best(result: Result, backend: str, precision: str, *, step: str | None = None) -> Row | None:
    """The most tiles/s of any batch size and form.

    :param step: of the measurement; None is any
    """
    rows = [row for row in result["rows"] if is_of(row, backend, precision) and whole(row)]
    rows = [row for row in rows if step is None or row.get("step") == step]
    return max(rows, key=lambda row: row["tiles_per_s"], default=None)


def is_of(row: Row, backend: str, precision: str) -> bool:
    return bool(row["backend"] == backend and row["precision"] == precision)


def whole(row: Row) -> bool:
    """Whether everything about it was measured, on what users get."""
    measured = "tiles_per_s" in row or "images_per_s" in row
    recorded = row["backend"] not in (*ENGINES, RTX) or row.get("graph") is True
    return measured and recorded and "error" not in row and "missing" not in row


def why(row: Row) -> str:
    """It is not whole."""
    if "error" in row:
        return f"failed: {row['error']}"
    if "missing" in row:
        return f"{NOT_RUN}: {row['missing']}"
    if "tiles_per_s" not in row and "images_per_s" not in row:
        return NOT_RUN
    return "no figure: its CUDA graphs were not " + ("recorded" if row.get("graph") is False else "asked after")


def reason(rows: Iterable[Row], backend: str, precision: str) -> str:
    """Why there is no figure: what the first row that failed says."""
    return next((why(row) for row in rows if is_of(row, backend, precision) and not whole(row)), NOT_RUN)


def _speed_up(result: Result, engine: str) -> Figure:
    """Each at its own best batch size; upstream as it took turns with the engine."""
    row = best(result, engine, "fp16")
    if row is None:
        return Figure(None, reason(result["rows"], engine, "fp16"))
    upstream = best(result, "PyTorch", "fp32", step=row.get("step")) or best(result, "PyTorch", "fp32")
    if upstream is None:
        return Figure(None, f"{NOT_RUN}: upstream's {reason(result['rows'], 'PyTorch', 'fp32')}")
    return _ratio(row, upstream)


def _of_ceiling(result: Result, engine: str) -> Figure:
    row = best(result, engine, "fp16")
    if row is None:
        return Figure(None, reason(result["rows"], engine, "fp16"))
    share = row.get("fraction_of_matmul")
    return Figure(share, f"{NOT_RUN}: no matmul rate" if share is None else f"{share:.0%}")


def _fp8(result: Result, engine: str) -> Figure:
    half, quarter = (best(result, engine, precision) for precision in ("fp16", "fp8"))
    if half is None or quarter is None:
        return Figure(None, reason(result["rows"], engine, "fp8" if quarter is None else "fp16"))
    return _ratio(quarter, half)


def _end_to_end(result: Result, engine: str) -> Figure:
    """The value is of the set that comes closest to the encoder; the text says where decoding is the slower."""
    rows = [row for row in result["end_to_end"] if row["backend"] == engine]
    found = [row for row in rows if "share_of_encoder" in row and whole(row)]
    if not found:
        return Figure(None, reason((*rows, *result["rows"]), engine, "fp16"))
    text = "; ".join(f"{row['share_of_encoder']:.0%} ({row['images']}{_decoding(row)})" for row in found)
    return Figure(max(row["share_of_encoder"] for row in found), text)


def _decoding(row: Row) -> str:
    slower = row["decode_images_per_s"] < row["encoder_images_per_s"]
    return f"; {row['workers']} threads decode slower than it encodes" if slower else ""


def _memory(result: Result, engine: str) -> Figure:
    """The most of the engine's fp16, in `spai-run` or alone, with what CUDA itself takes, in GB."""
    batch = result["settings"]["batches"][0]
    rows = [row for row in (*result["rows"], *result["end_to_end"]) if is_of(row, engine, "fp16")]
    found = [row["memory_mb"] for row in rows if whole(row) and row["batch"] == batch == row["default_batch"]]
    if not found:
        return Figure(None, reason(rows, engine, "fp16"))
    used = (max(found) + result["device"]["context_mb"]) / 1e3
    return Figure(used, f"{used:.1f} GB")


def _ratio(fast: Row, slow: Row) -> Figure:
    rates = [row["tiles_per_s"] for row in (fast, slow)]
    ratio = rates[0] / rates[1]
    return Figure(ratio, f"{ratio:.3g} × ({number(rates[0])} to {number(rates[1])} tiles/s)")


GOALS = (
    GpuGoal(
        "ViT-B/16 encoder in fp16, against upstream's formulation in eager fp32 PyTorch, tiles/s", "≥ 8 ×", 8, _speed_up
    ),
    GpuGoal("the same, as a share of the GPU's own rate of an fp16 matrix product", "≥ 50%", 0.5, _of_ceiling),
    GpuGoal("fp8 against fp16, TensorRT, tiles/s", "≥ 1.4 ×", 1.4, _fp8, engines=ENGINES[1:]),
    GpuGoal("`spai-run` from JPEGs on disk, as a share of its encoder's own rate", "≥ 90%", 0.9, _end_to_end),
    GpuGoal("GPU memory at the default batch, fp16", "< 8 GB", 8, _memory, holds=lt),
)
