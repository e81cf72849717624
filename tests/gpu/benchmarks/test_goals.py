"""What a result file says of the goals, in figures that can be compared."""

from typing import Any

import pytest
from goals import lines
from gpu.goals import GOALS, summary


def row(backend: str, precision: str, rate: float, *, graph: bool = True, **more: Any) -> dict[str, Any]:
    named = {"backend": backend, "precision": precision, "form": "", "batch": 32, "default_batch": 32}
    return {**named, "tiles_per_s": rate, "graph": graph, "memory_mb": 7000.0, **more}


@pytest.fixture
def result() -> dict[str, Any]:
    ran = row("ONNX Runtime", "fp16", 0.0, images="some", share_of_encoder=0.93, images_per_s=1.0, workers=8)
    slow = {**ran, "share_of_encoder": 0.4}
    rates = {"decode_images_per_s": 3.0, "encoder_images_per_s": 2.0}
    return {
        "device": {"context_mb": 500.0},
        "settings": {"batches": [32]},
        "rows": [
            row("PyTorch", "fp32", 500.0, graph=False, step="torch"),
            row("PyTorch", "fp32", 400.0, graph=False, step="onnx"),
            row("ONNX Runtime", "fp16", 3400.0, fraction_of_matmul=0.45, step="onnx"),
            row("TensorRT", "fp16", 4000.0, fraction_of_matmul=0.55, memory_mb=7600.0, step="tensorrt"),
            row("TensorRT", "fp8", 5200.0, step="tensorrt"),
        ],
        "end_to_end": [{**slow, **rates}, {**ran, **rates}],
    }


def values(result: dict[str, Any]) -> dict[tuple[str, str], tuple[float | None, bool | None]]:
    return {(entry["asked"], entry["engine"]): (entry["value"], entry["met"]) for entry in summary(result)}


def test_every_goal_has_a_value_for_each_engine(result: dict[str, Any]) -> None:
    """Upstream is the one that took turns with the engine, where it did."""
    assert values(result) == {
        ("≥ 8 ×", "ONNX Runtime"): (8.5, True),
        ("≥ 8 ×", "TensorRT"): (8.0, True),
        ("≥ 50%", "ONNX Runtime"): (0.45, False),
        ("≥ 50%", "TensorRT"): (0.55, True),
        ("≥ 1.4 ×", "TensorRT"): (1.3, False),
        ("≥ 90%", "ONNX Runtime"): (0.93, True),
        ("≥ 90%", "TensorRT"): (None, None),
        ("< 8 GB", "ONNX Runtime"): (7.5, True),
        ("< 8 GB", "TensorRT"): (8.1, False),
    }


def test_goals_of_nothing_are_not_met(result: dict[str, Any]) -> None:
    found = summary({**result, "rows": [], "end_to_end": []})
    assert {(entry["value"], entry["met"], entry["measured"]) for entry in found} == {(None, None, "not run")}
    assert len(found) == 9


def test_tensorrt_for_rtx_counts_where_it_has_run(result: dict[str, Any]) -> None:
    row = {**result["rows"][2], "backend": "TensorRT for RTX"}
    result["rows"].append({**row, "missing": "the GPU is none of its own"})
    del result["rows"][-1]["tiles_per_s"]
    assert len(values(result)) == 9
    result["rows"].append(row)
    assert values(result)["≥ 8 ×", "TensorRT for RTX"] == values(result)["≥ 8 ×", "ONNX Runtime"]
    assert len(values(result)) == 14
    result["rows"][-1]["graph"] = False
    assert values(result)["≥ 8 ×", "TensorRT for RTX"] == (None, None)


def test_a_row_whose_graph_was_spoilt_meets_no_goal(result: dict[str, Any]) -> None:
    result["rows"][2]["graph"] = False
    assert values(result)["≥ 8 ×", "ONNX Runtime"] == (None, None)
    (entry, *_) = summary(result)
    assert entry["measured"] == "no figure: its CUDA graphs were not recorded"


def test_goals_on_a_terminal(result: dict[str, Any]) -> None:
    printed = lines(summary(result))
    assert len(printed) == 9
    assert printed[0] == f"met        ≥ 8 ×  ONNX Runtime: 8.5 × (3,400 to 400 tiles/s): {GOALS[0].what}"
    assert printed[2].startswith("missed ")
    assert printed[6].startswith("not run")
