"""One result file of a device, of what several steps wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
from gpu.offline.collect import collect

FACTS = {
    "benchmark": "gpu",
    "model": "vitb",
    "device": {"name": "NVIDIA H200", "context_mb": 500.0},
    "complete": True,
}


def row(backend: str, rate: float, **more: Any) -> dict[str, Any]:
    named = {"backend": backend, "form": "", "batch": 32, "default_batch": 32, "graph": True, "memory_mb": 1000.0}
    return {**named, "precision": "fp32" if backend == "PyTorch" else "fp16", "tiles_per_s": rate, **more}


RUN = {"images": "some", "images_per_s": 9.0, "share_of_encoder": 0.95, "workers": 8}
RATES = {"decode_images_per_s": 30.0, "encoder_images_per_s": 10.0}


def write(output: Path, step: str, rows: list[Any], runs: tuple[Any, ...] = (), **facts: Any) -> None:
    folder = output / step
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"batches": [32], "backends": [step], "parts": ["rows"], "limit": 5.0, "seconds": 1.0}
    content = {**FACTS, "settings": settings, "rows": rows, "end_to_end": list(runs), **facts}
    ending = "" if content["model"] == "vitb" else f"-{content['model']}"
    (folder / f"gpu-nvidia-h200{ending}.json").write_text(json.dumps(content))
    (folder / "step.json").write_text(json.dumps({"step": step, "state": "passed"}))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "output"
    write(output, "onnx", [row("PyTorch", 200.0), row("ONNX Runtime", 1800.0)])
    write(output, "torch", [row("PyTorch", 100.0)])
    write(output, "torch", [row("PyTorch", 7.0)], model="tiny")
    write(output, "end-to-end", [], ({**row("ONNX Runtime", 0.0), **RUN, **RATES},))
    (output / "smoke").mkdir()
    (output / "smoke" / "step.json").write_text(json.dumps({"step": "smoke", "state": "failed"}))
    return output


def test_steps_are_joined(output: Path, tmp_path: Path) -> None:
    """In the order of the steps, in one file, of the published model alone."""
    (path,) = collect([output], tmp_path / "results")
    assert path == tmp_path / "results" / "gpu-nvidia-h200.json"
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    found = json.loads(path.read_text())
    assert [(one["step"], one["backend"], one["tiles_per_s"]) for one in found["rows"]] == [
        ("torch", "PyTorch", 100.0),
        ("onnx", "PyTorch", 200.0),
        ("onnx", "ONNX Runtime", 1800.0),
    ]
    assert [one["step"] for one in found["end_to_end"]] == ["end-to-end"]
    assert found["settings"] == {"batches": [32], "seconds": 1.0}
    assert {name: step["state"] for name, step in found["steps"].items()} == {
        "smoke": "failed",
        "torch": "passed",
        "onnx": "passed",
        "end-to-end": "passed",
    }
    assert found["complete"] is True
    goals = {(goal["engine"], goal["asked"]): (goal["value"], goal["met"]) for goal in found["goals"]}
    assert goals["ONNX Runtime", "≥ 8 ×"] == (9.0, True)  # upstream of the same step
    assert goals["ONNX Runtime", "≥ 90%"] == (0.95, True)
    assert goals["TensorRT", "≥ 8 ×"] == (None, None)


def test_a_later_visit_counts(output: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    write(later, "onnx", [row("ONNX Runtime", 999.0)])
    (path,) = collect([output, later], tmp_path / "results")
    found = json.loads(path.read_text())
    assert [one["tiles_per_s"] for one in found["rows"]] == [100.0, 999.0]


@pytest.mark.parametrize("step", ["torch", "onnx", "end-to-end"])
def test_without_a_step_or_with_one_cut_short_it_is_not_complete(output: Path, tmp_path: Path, step: str) -> None:
    path = output / step / "gpu-nvidia-h200.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))
    (found,) = collect([output], tmp_path / "results")
    assert json.loads(found.read_text())["complete"] is False
    path.unlink()
    (found,) = collect([output], tmp_path / "results")
    assert json.loads(found.read_text())["complete"] is False


def test_nothing_is_written_of_nothing(tmp_path: Path) -> None:
    assert collect([tmp_path], tmp_path / "results") == []
    assert list(tmp_path.iterdir()) == []
