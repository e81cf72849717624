"""Steps: their order, their time, what is written of them and when."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from gpu.offline.runner import run
from gpu.offline.steps import FOLDER, STEPS, Command, Step

NOTE = "import sys, pathlib; pathlib.Path(sys.argv[1], 'note.txt').write_text('{0}'); print('{0}')"


def python(code: str, *arguments: str, **variables: str) -> Command:
    return Command(("-c", code, *arguments), variables)


def step(name: str, *commands: Command, limit: float = 60, said: str = "") -> Step:
    return Step(name, "", limit, commands, said)


def outcome(output: Path, name: str) -> Any:
    return json.loads((output / name / "step.json").read_text())


def test_a_step_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    first = step("first", python("print('before'); raise SystemExit(3)"), python(NOTE.format("still"), FOLDER))
    second = step("second", python(NOTE.format("done"), FOLDER))
    found = run([first, second], tmp_path, os.environ)
    assert [(one["step"], one["state"], one["exit_codes"]) for one in found] == [
        ("first", "failed", [3, 0]),
        ("second", "passed", [0]),
    ]
    assert [outcome(tmp_path, one["step"]) for one in found] == found
    assert (tmp_path / "first" / "log.txt").read_text() == "before\nstill\n"
    assert found[1]["last_line"] == (tmp_path / "second" / "note.txt").read_text() == "done"


def test_a_step_is_stopped_at_its_limit_with_all_that_it_began(tmp_path: Path) -> None:
    """What it had printed and written by then is there."""
    child = "import time; time.sleep(600)"
    hangs = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', '{child}'])"
    begun = time.monotonic()
    late = python("raise SystemExit('never')")
    found = run([step("slow", python(hangs), late, limit=3), step("next", python("pass"))], tmp_path, os.environ)
    assert time.monotonic() - begun < 60
    assert [one["state"] for one in found] == ["stopped", "passed"]
    assert found[0]["exit_codes"] == [None, None]
    assert found[0]["seconds"] >= 3
    assert found[0]["last_line"] == "begun"


def test_what_came_of_a_step_is_written_at_once(tmp_path: Path) -> None:
    """While one runs its file says so, and those before it are done."""
    look = (
        "import pathlib; print(*sorted(path.read_text() for path in pathlib.Path({!r}).glob('*/step.json')), sep='---')"
    )
    seen: list[list[str]] = []

    def written() -> None:
        seen.append([outcome(tmp_path, path.name)["state"] for path in sorted(tmp_path.iterdir())])

    run([step("a", python("pass")), step("b", python(look.format(str(tmp_path))))], tmp_path, os.environ, written)
    assert seen == [["passed"], ["passed", "passed"]]
    log = (tmp_path / "b" / "log.txt").read_text()
    assert [json.loads(part)["state"] for part in log.split("---")] == ["passed", "running"]


def test_tests_that_are_all_skipped_have_not_passed(tmp_path: Path) -> None:
    """Pytest exits with 0 then."""
    (said,) = (step.said for step in STEPS if step.name == "tests")
    for line, state in (("14 skipped, 355 deselected in 2.28s", "failed"), ("12 passed, 2 skipped in 9s", "passed")):
        (found,) = run([step("tests", python(f"print('{line}')"), said=said)], tmp_path, os.environ)
        assert (found["state"], found["last_line"]) == (state, line)


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    run([step("a", python(NOTE.format("old"), FOLDER))], tmp_path, os.environ)
    (tmp_path / "mine.txt").touch()
    run([step("a", python("pass"))], tmp_path, os.environ)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["log.txt", "step.json"]
    assert (tmp_path / "mine.txt").exists()


def test_variables_of_a_command_and_the_time_that_is_left(tmp_path: Path) -> None:
    show = "import os; print(os.environ['SPAI_BENCH_MODEL'], os.environ['SPAI_BENCH_LIMIT'])"
    given = {**os.environ, "SPAI_BENCH_MODEL": "vitb"}
    (found,) = run([step("a", python(show, SPAI_BENCH_MODEL="tiny"), limit=100)], tmp_path, given)
    assert found["last_line"] == "tiny 60"
    (found,) = run([step("a", python(show))], tmp_path, {**given, "SPAI_BENCH_LIMIT": "7"})
    assert found["last_line"] == "vitb 7"


def test_the_order_of_steps() -> None:
    """A smoke score, the tests, then what is measured; the tiny model before the published one."""
    assert [step.name for step in STEPS] == ["smoke", "tests", "torch", "onnx", "end-to-end", "tensorrt"]
    assert all(0 < step.limit < 600 for step in STEPS)
    models = {step.name: [command.variables.get("SPAI_BENCH_MODEL") for command in step.commands] for step in STEPS}
    assert models == {
        "smoke": [None],
        "tests": [None],
        "torch": ["tiny", "vitb"],
        "onnx": ["tiny", "vitb"],
        "end-to-end": ["vitb"],
        "tensorrt": ["tiny", "vitb"],
    }


@pytest.mark.parametrize(
    ("step", "contenders"),
    [
        ("torch", {"PyTorch fp32 upstream", "torch.compile bf16 reduce-overhead"}),
        ("end-to-end", {"ONNX Runtime fp16 fused attention", "TensorRT fp16", "TensorRT for RTX fp16"}),
    ],
)
def test_contenders_of_a_step(step: str, contenders: set[str]) -> None:
    assert chosen(step) == contenders


def test_every_contender_is_one_of_a_step() -> None:
    assert set().union(*map(chosen, ("torch", "onnx", "tensorrt"))) == set(names())
    assert all("PyTorch fp32 upstream" in chosen(step) for step in ("torch", "onnx", "tensorrt"))


def names() -> list[str]:
    from gpu.measurement import everyone  # noqa: PLC0415  PyTorch
    from gpu.settings import Settings  # noqa: PLC0415

    return [contender.name for contender in everyone(Settings(), None)]


def chosen(name: str) -> set[str]:
    from gpu.settings import Settings  # noqa: PLC0415

    (commands,) = (step.commands for step in STEPS if step.name == name)
    settings = Settings.of(commands[-1].variables)
    return {name for name in names() if settings.wants(name)}
