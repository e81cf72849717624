"""Goals and tables of benchmarks/cpu, from results that are made up and from those that are committed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cpu import table
from cpu.goals import GOALS, failures
from goals import Row, summary
from text import slug

ROOT = Path(__file__).parents[2]
MARKER = "<!-- from benchmarks/results/cpu-*.json -->"
ENGINES = ("OpenVINO fp32", "OpenVINO bf16", "int8")


def row(backend: str, precision: str, ratio: float, difference: float, **changed: Any) -> Row:
    """As a whole measurement writes one."""
    return {
        "backend": backend,
        "precision": precision,
        "encoder": {"tiles_per_s": 1.25 * ratio, "ratio": ratio, "batch": 2},
        "scores": {"score_difference": difference, "auc_difference": 0.0021},
        "latency": {name: {"p50_s": 1.234, "p99_s": 1.5, "images": 3} for name in ("one_core", "two_cores")},
        "start": {"peak_mb": 1101.0, "second_start_s": 1.625, "first_start_s": 3.0},
        "run": {"against_encoder": 1.0625, "images_per_s": 0.5},
        "beside": {"images_per_s": 9.75, "against_encoder": 1.01},
        **changed,
    }


@pytest.fixture
def sample() -> dict[str, Any]:
    return {
        "model": "vitb",
        "complete": True,
        "processor": {"name": "Some Processor", "flags": ["avx512_bf16"], "cores": 2},
        "rows": [
            {"backend": "PyTorch", "precision": "fp32", "encoder": {"tiles_per_s": 1.25, "ratio": 1.0, "batch": 4}},
            row("ONNX Runtime", "fp32", 1.2, 0.0),
            row("OpenVINO", "fp32", 1.3, 1e-6),
            row("OpenVINO", "bf16", 4.0, 2e-3),
            row("OpenVINO", "int8", 5.5, 4e-3),
            row("ONNX Runtime", "int8", 5.0, 9e-1),
        ],
    }


def values(result: dict[str, Any], engine: str) -> list[tuple[str, float | None, bool | None]]:
    entries = summary(result, GOALS)
    return [(entry["asked"], entry["value"], entry["met"]) for entry in entries if entry["engine"] == engine]


def test_every_goal_of_the_issue_has_a_value(sample: dict[str, Any]) -> None:
    """int8 is that of the engine that is fastest with it."""
    assert values(sample, "OpenVINO fp32") == [
        ("≥ 1.25 ×", 1.3, True),
        ("≤ 1e-5", 1e-6, True),
        ("≤ 1.1 ×", 1.0625, True),
    ]
    assert values(sample, "OpenVINO bf16") == [
        ("≥ 2.5 ×", 4.0, True),
        ("≤ 5e-3", 2e-3, True),
        ("≤ 1.1 ×", 1.0625, True),
    ]
    assert values(sample, "int8") == [
        ("≥ 4.0 ×", 5.5, True),
        ("≤ 1e-2", 4e-3, True),
        ("≤ 0.003", 0.0021, True),
        ("≤ 1.1 ×", 1.0625, True),
        ("< 1.2 GB", 1101.0, True),
        ("< 2 s", 1.625, True),
    ]
    assert failures(summary(sample, GOALS)) == []


@pytest.mark.parametrize(
    ("index", "part", "key", "value", "asked"),
    [
        (2, "encoder", "ratio", 1.24, "≥ 1.25 ×"),
        (3, "encoder", "ratio", 2.4, "≥ 2.5 ×"),
        (4, "encoder", "ratio", 3.9, "≥ 4.0 ×"),
        (2, "scores", "score_difference", 1.1e-5, "≤ 1e-5"),
        (3, "scores", "score_difference", 5.1e-3, "≤ 5e-3"),
        (4, "scores", "score_difference", 1.1e-2, "≤ 1e-2"),
        (4, "scores", "auc_difference", 0.0031, "≤ 0.003"),
        (2, "run", "against_encoder", 1.11, "≤ 1.1 ×"),
        (3, "run", "against_encoder", 1.11, "≤ 1.1 ×"),
        (4, "run", "against_encoder", 1.11, "≤ 1.1 ×"),
        (4, "start", "peak_mb", 1200.0, "< 1.2 GB"),
        (4, "start", "second_start_s", 2.0, "< 2 s"),
    ],
)
def test_what_falls_short_fails(
    sample: dict[str, Any], index: int, part: str, key: str, value: float, asked: str
) -> None:
    changed = sample["rows"][index]
    changed[part] = {**changed[part], key: value}
    (missed,) = failures(summary(sample, GOALS))
    name = "int8" if changed["precision"] == "int8" else f"{changed['backend']} {changed['precision']}"
    assert (missed["asked"], missed["engine"], missed["value"], missed["met"]) == (asked, name, value, False)


def test_what_the_machine_cannot_have_is_said_and_does_not_fail(sample: dict[str, Any]) -> None:
    sample["rows"][3] = {"backend": "OpenVINO", "precision": "bf16", "absent": "it has no bf16"}
    entries = summary(sample, GOALS)
    assert {entry["measured"] for entry in entries if entry["met"] is None} == {"not run: it has no bf16"}
    assert failures(entries) == []


def test_an_engine_that_fails_here_fails_the_run(sample: dict[str, Any]) -> None:
    """Also where some figures were there before."""
    sample["rows"][3]["encoder"] = {"tiles_per_s": 5.0, "ratio": 4.0, "error": "RuntimeError: a | b"}
    (missed,) = failures(summary(sample, GOALS))
    assert (missed["value"], missed["measured"]) == (None, "failed: RuntimeError: a | b")


def test_parts_and_contenders_that_were_left_out_do_not_fail(sample: dict[str, Any]) -> None:
    sample["rows"] = [{"backend": "OpenVINO", "precision": "bf16", "encoder": {"ratio": 3.0, "tiles_per_s": 4.0}}]
    entries = summary(sample, GOALS)
    assert {entry["met"] for entry in entries} == {True, None}
    assert failures(entries) == []


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_tables_of_a_result(sample: dict[str, Any]) -> None:
    sample["rows"][5] = {"backend": "ONNX Runtime", "precision": "int8", "absent": "it is not installed"}
    sample["rows"][3]["start"] = {"error": "ChildError: spai-run: a | b"}
    text = table.markdown([sample])
    goals, contenders = (part.splitlines() for part in text.split("\n\n"))
    assert cells(goals[0]) == ["Some Processor (avx512_bf16), 2 cores", *ENGINES]
    assert cells(goals[2])[1:] == ["1.3 × (≥ 1.25 ×)", "4 × (≥ 2.5 ×)", "5.5 × (OpenVINO) (≥ 4.0 ×)"]
    assert cells(goals[-1])[1:] == ["", "", "1.62 s (OpenVINO) (< 2 s)"]
    assert cells(contenders[0]) == ["Some Processor (avx512_bf16), 2 cores", *table.HEAD]
    assert {len(cells(line)) for line in contenders} == {1 + len(table.HEAD)}
    shown = {line[0]: line[1:] for line in map(cells, contenders[2:])}
    assert shown["PyTorch fp32"] == ["1.25 (4 at once)", "1", *[""] * 9]
    assert shown["OpenVINO int8"] == [
        "6.88 (2 at once)",
        "5.5",
        "4.0e-03",
        "0.002",
        "1.23 / 1.5 s",
        "1.23 / 1.5 s",
        "1101 MB",
        "1.62 s",
        "1.062",
        "0.5",
        "9.75",
    ]
    assert shown["OpenVINO bf16"][6:8] == ["failed: ChildError: spai-run: a \\| b", ""]
    assert shown["ONNX Runtime int8"] == ["not run: it is not installed", *[""] * 10]


def test_tables_of_nothing_say_what_is_asked_for() -> None:
    lines = table.markdown([]).splitlines()
    assert cells(lines[2])[1:] == ["not run (≥ 1.25 ×)", "not run (≥ 2.5 ×)", "not run (≥ 4.0 ×)"]


def test_other_models_are_in_no_table_of_the_readme(sample: dict[str, Any]) -> None:
    assert table.markdown([{**sample, "model": "tiny"}]) == table.markdown([])
    assert "1 MP" in table.tables([{**sample, "model": "tiny"}])


def test_the_script_prints_the_tables_of_what_is_committed() -> None:
    script = ROOT / "benchmarks" / "cpu" / "table.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == table.markdown(table.committed())


def faults(path: Path) -> list[str]:
    """Why a result file may not be committed."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rules = {
        "another processor": path.stem != f"cpu-{slug(result['processor']['name'])}",
        "another model": result["model"] != "vitb",
        "cut short": not result["complete"],
        "a host's name": "node" in result["machine"],
        "other goals": result["goals"] != json.loads(json.dumps(summary(result, GOALS))),
    }
    return [fault for fault, found in rules.items() if found]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("cpu-some-processor", {}, []),
        ("cpu-another", {}, ["another processor"]),
        ("cpu-some-processor", {"model": "tiny"}, ["another model"]),
        ("cpu-some-processor", {"complete": False}, ["cut short"]),
        ("cpu-some-processor", {"machine": {"node": "somebody"}}, ["a host's name"]),
        ("cpu-some-processor", {"goals": []}, ["other goals"]),
    ],
)
def test_which_results_may_be_committed(
    sample: dict[str, Any], tmp_path: Path, name: str, change: dict[str, Any], fault: list[str]
) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({**sample, "machine": {}, "goals": summary(sample, GOALS), **change}))
    assert faults(path) == fault


def test_committed_results_are_those_of_processors() -> None:
    assert {path.name: faults(path) for path in table.RESULTS.glob("cpu-*.json") if faults(path)} == {}


def test_the_page_has_the_tables() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.count(MARKER) == 1
    assert page.partition(MARKER)[2].lstrip().startswith(table.markdown(table.committed()))
