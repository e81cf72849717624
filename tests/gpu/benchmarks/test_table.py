"""The table of docs/benchmarks.md of GPUs, from results that are made up and from those that are committed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu import table
from text import slug

ROOT = Path(__file__).parents[3]
MARKER = "<!-- from benchmarks/results/gpu-*.json -->"


def row(backend: str, precision: str, rate: float, *, batch: int = 32, form: str = "", **more: Any) -> dict[str, Any]:
    """As Bench writes one."""
    figures = {
        "latency_p50_ms": 7.1234,
        "latency_p99_ms": 9.0,
        "launches": 140,
        "tiles_per_s": rate,
        "memory_mb": 2500.0,
    }
    found = {"largest_difference": 0.00123, "relative_difference": 1e-4, "default_batch": 32}
    named = {"backend": backend, "precision": precision, "form": form, "batch": batch, "graph": form != "upstream"}
    return {**named, **figures, **found, **more}


def whole_run(backend: str, images: str, share: float, decoding: float, memory: float) -> dict[str, Any]:
    rates = {"images_per_s": 700.0 * share, "encoder_images_per_s": 700.0, "decode_images_per_s": decoding}
    named = {"backend": backend, "precision": "fp16", "form": "", "images": images, "batch": 32, "default_batch": 32}
    return {**named, **rates, "graph": True, "share_of_encoder": share, "memory_mb": memory, "workers": 16}


@pytest.fixture
def sample() -> dict[str, Any]:
    refusal = "TensorRT is not installed: pip install 'spai-toolkit[trt]'"
    large = row("ONNX Runtime", "fp16", 2900.0, batch=128, fraction_of_matmul=0.48)
    large |= {"default_batch": 128, "memory_mb": 20000.0}  # as of a plan that is tuned for so many
    return {
        "model": "vitb",
        "complete": True,
        "device": {"name": "NVIDIA H200", "context_mb": 512.0},
        "settings": {"batches": [32, 1]},
        "rows": [
            row("PyTorch", "fp32", 300.0, form="upstream"),
            row("ONNX Runtime", "fp16", 2800.0, form="fused attention", fraction_of_matmul=0.47),
            row("ONNX Runtime", "fp16", 2000.0, form="plain attention", fraction_of_matmul=0.33, memory_mb=3500.0),
            {"backend": "TensorRT", "precision": "fp16", "form": "", "batch": 32, "missing": refusal},
            {**row("ONNX Runtime", "bf16", 9999.0), "error": "RuntimeError: a | b"},
            row("PyTorch", "fp32", 310.0, form="upstream", batch=1),
            large,
            row("ONNX Runtime", "fp16", 3100.0, batch=1, memory_mb=9000.0, fraction_of_matmul=0.5),
        ],
        "end_to_end": [
            whole_run("ONNX Runtime", "small ones", 0.953, 900.0, 2400.0),
            whole_run("ONNX Runtime", "large ones", 0.61, 430.0, 2600.0),
        ],
    }


def test_table_of_nothing_says_so() -> None:
    lines = table.markdown([]).splitlines()
    assert lines[0] == "|  | asked for | measured |"
    assert [line.rsplit(" | ", 1)[1] for line in lines[2:]] == ["not run |"] * 5
    asked = [line.split(" | ")[1] for line in lines[2:]]
    assert asked == ["≥ 8 ×", "≥ 50%", "≥ 1.4 ×", "≥ 90%", "< 8 GB"]


def test_table_of_a_result(sample: dict[str, Any]) -> None:
    figures = [line.split(" | ")[2].removesuffix(" |") for line in table.markdown([sample]).splitlines()[2:7]]
    refusal = "TensorRT not run: TensorRT is not installed: pip install 'spai-toolkit[trt]'"
    assert figures == [
        f"ONNX Runtime 10 × (3,100 to 310 tiles/s); {refusal}",  # each at its best batch size
        f"ONNX Runtime 50%; {refusal}",
        "TensorRT not run",
        "ONNX Runtime 95% (small ones); 61% (large ones; 16 threads decode slower than it encodes); "
        "TensorRT not run: TensorRT is not installed: pip install 'spai-toolkit[trt]'",
        f"ONNX Runtime 4.0 GB; {refusal}",  # the most at the default batch, and the context
    ]


def test_table_lists_contenders_and_runs(sample: dict[str, Any]) -> None:
    lines = table.markdown([sample]).splitlines()
    assert "| ONNX Runtime fp16 (fused attention) | 7.12 / 9 ms | 2,800 | 47% | 2.5 GB | 1.2e-03 |" in lines
    assert "| ONNX Runtime bf16 | failed: RuntimeError: a \\| b |  |  |  |  |" in lines
    assert "| ONNX Runtime fp16, large ones | 427 | 700 | 430 | 16 |" in lines
    assert not any("9,999" in line for line in lines)


def test_an_engine_without_its_cuda_graphs_has_no_figure(sample: dict[str, Any]) -> None:
    """A row that is valid otherwise, in which nobody noticed that the recording was spoilt or nobody asked."""
    del sample["rows"][-1]["graph"]
    sample["rows"][-2]["graph"] = False
    lines = table.markdown([sample]).splitlines()
    assert "ONNX Runtime 9.03 × (2,800 to 310 tiles/s); " in lines[2]  # of the first batch size
    for row in (*sample["rows"], *sample["end_to_end"]):
        row["graph"] = False
    text = table.markdown([sample])
    assert "2,800" not in text
    assert "95%" not in text
    assert "| ONNX Runtime fp16 (fused attention) | no figure: its CUDA graphs were not recorded |  |  |  |  |" in text
    assert "| ONNX Runtime fp16, large ones | no figure: its CUDA graphs were not recorded |  |  |  |" in text
    assert "| PyTorch fp32 (upstream) | 7.12 / 9 ms | 300 |" in text


def test_a_compiler_that_recorded_nothing_is_named_so(sample: dict[str, Any]) -> None:
    sample["rows"].append(row("torch.compile", "bf16", 1234.0, form="reduce-overhead", graph=False))
    assert "| torch.compile bf16 (reduce-overhead, no CUDA graph) | 7.12 / 9 ms | 1,234 |" in table.markdown([sample])


def test_a_contender_of_several_steps_is_listed_once(sample: dict[str, Any]) -> None:
    sample["rows"].append(row("PyTorch", "fp32", 333.0, form="upstream", step="onnx"))
    listed = [line for line in table.markdown([sample]).splitlines() if line.startswith("| PyTorch fp32")]
    assert len(listed) == 1
    assert " | 300 | " in listed[0]


def test_a_figure_that_was_not_measured_is_in_no_table(sample: dict[str, Any]) -> None:
    """Rows that were begun and no more: the only digits left are names' and those asked for."""
    named = ("backend", "precision", "form", "batch", "images")
    for part in ("rows", "end_to_end"):
        sample[part] = [{key: value for key, value in row.items() if key in named} for row in sample[part]]
    text = table.markdown([sample])
    for given in ("H200", "ViT-B/16", "fp16", "fp32", "fp8", "bf16", "≥ 8 ×", "≥ 50%", "≥ 1.4 ×", "≥ 90%", "< 8 GB"):
        text = text.replace(given, "")
    text = text.replace("32 tiles a launch", "").replace("p50 / p99", "")
    assert re.findall(r"\d+", text) == []
    assert "not run" in text


def test_table_has_a_column_a_device_and_no_other_model(sample: dict[str, Any]) -> None:
    other = {**sample, "device": {**sample["device"], "name": "NVIDIA L4"}, "complete": False}
    lines = table.markdown([sample, other, {**sample, "model": "tiny", "device": {"name": "none"}}]).splitlines()
    assert lines[0] == "|  | asked for | NVIDIA H200 | NVIDIA L4 (run cut short) |"
    assert all(len(re.split(r"(?<!\\)\|", line)) == 6 for line in lines[:7])
    assert "none" not in "\n".join(lines)


def test_the_script_prints_the_table_of_what_is_committed() -> None:
    script = ROOT / "benchmarks" / "gpu" / "table.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == table.markdown(table.committed())


def faults(path: Path) -> list[str]:
    """Why a result file may not be committed."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rules = {
        "another device": path.stem != f"gpu-{slug(result['device']['name'])}",
        "another model": result["model"] != "vitb",
        "a host's name": "node" in result["machine"],
    }
    return [fault for fault, found in rules.items() if found]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("gpu-nvidia-h200", {}, []),
        ("gpu-nvidia-l4", {}, ["another device"]),
        ("gpu-nvidia-h200", {"model": "tiny"}, ["another model"]),
        ("gpu-nvidia-h200", {"machine": {"node": "somebody"}}, ["a host's name"]),
    ],
)
def test_which_results_may_be_committed(
    sample: dict[str, Any], tmp_path: Path, name: str, change: dict[str, Any], fault: list[str]
) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({**sample, "machine": {}, **change}))
    assert faults(path) == fault


def test_committed_results_are_those_of_devices() -> None:
    assert {path.name: faults(path) for path in table.RESULTS.glob("gpu-*.json") if faults(path)} == {}


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.count(MARKER) == 1
    assert page.partition(MARKER)[2].lstrip().startswith(table.markdown(table.committed()))
