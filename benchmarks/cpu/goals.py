"""What was asked for on a CPU, and what a result file has of it: `summary` goes into the file, table.py shows it."""

from collections.abc import Callable, Sequence
from operator import le, lt

from goals import NOT_RUN, Figure, Goal, Result, Row, number

from cpu.settings import ENCODER, RUN, SCORES, START

FP32, BF16 = "OpenVINO fp32", "OpenVINO bf16"
INT8 = "int8"  # of whichever engine is the fastest
FASTER = "tiles/s of the encoder, against eager fp32 PyTorch in upstream's formulation, each at its best batch size"
CLOSE = "largest |Δscore| from ONNX Runtime in fp32, demo detector, 50 photographs and simulated images"


def row_of(result: Result, engine: str) -> Row | None:
    """:param engine: `OpenVINO fp32`; INT8 is the fastest of these"""
    rows = [row for row in result["rows"] if engine in (f"{row['backend']} {row['precision']}", row["precision"])]
    return max(rows, key=lambda row: row.get(ENCODER, {}).get("tiles_per_s", 0), default=None)


def why(row: Row | None, part: str) -> str:
    """A row has no figure."""
    if row is None or "absent" in row:
        return f"{NOT_RUN}: {row['absent']}" if row else NOT_RUN
    error = row.get(part, {}).get("error")
    return f"failed: {error}" if error else NOT_RUN


def failures(entries: Sequence[Row]) -> list[Row]:
    """Of a summary: what is missed, or was not measured because the engine failed, and not because it is not here."""
    return [entry for entry in entries if not entry["met"] and not entry["measured"].startswith(NOT_RUN)]


def _figure(part: str, key: str, text: Callable[[float], str]) -> Callable[[Result, str], Figure]:
    """Of an engine's row."""

    def figure(result: Result, engine: str) -> Figure:
        row = row_of(result, engine)
        figures = row.get(part, {}) if row else {}
        if row is None or key not in figures or "error" in figures:
            return Figure(None, why(row, part))
        name = f" ({row['backend']})" if engine == INT8 else ""
        return Figure(figures[key], text(figures[key]) + name)

    return figure


def _faster(engine: str, bound: float) -> Goal:
    figure = _figure(ENCODER, "ratio", lambda value: f"{number(value)} ×")
    return Goal(FASTER, f"≥ {bound} ×", bound, figure, (engine,))


def _difference(engine: str, bound: float) -> Goal:
    figure = _figure(SCORES, "score_difference", lambda value: f"{value:.1e}")
    return Goal(CLOSE, f"≤ {bound:.0e}".replace("e-0", "e-"), bound, figure, (engine,), le)


GOALS: Sequence[Goal] = (
    _faster(FP32, 1.25),
    _faster(BF16, 2.5),
    _faster(INT8, 4.0),
    _difference(FP32, 1e-5),
    _difference(BF16, 5e-3),
    _difference(INT8, 1e-2),
    Goal(
        "largest change of an AUC, scenes of the demo detector's test set as PNG and as JPEG",
        "≤ 0.003",
        0.003,
        _figure(SCORES, "auc_difference", lambda value: f"{value:.1g}"),
        (INT8,),
        le,
    ),
    Goal(
        "`spai-run` from JPEGs of 4 tiles on disk, against the time of its encoder alone",
        "≤ 1.1 ×",
        1.1,
        _figure(RUN, "against_encoder", lambda value: f"{value:.3f} ×"),
        (FP32, BF16, INT8),
        le,
    ),
    Goal(
        "most resident memory of `spai-run`",
        "< 1.2 GB",
        1200,
        _figure(START, "peak_mb", lambda value: f"{value / 1e3:.2f} GB"),
        (INT8,),
        lt,
    ),
    Goal(
        "from the second start of `spai-run` to the first score",
        "< 2 s",
        2,
        _figure(START, "second_start_s", lambda value: f"{value:.2f} s"),
        (INT8,),
        lt,
    ),
)
