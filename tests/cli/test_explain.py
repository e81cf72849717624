"""spai-run --explain: everything that could run, what runs, and why not the rest."""

from pathlib import Path

import pytest

from tests.support.commands import Run

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spai_runtime.speed.SECONDS", 0.0)


def test_everything_from_the_best_to_the_last(run: Run, tiny_detector: Path, bf16: Path) -> None:
    ran = run("--explain", "--engine", tiny_detector)
    assert (ran.code, ran.stderr) == (0, "")
    _, name, cuda, half, single, other = ran.stdout.splitlines()
    assert name == f"{tiny_detector}: tiny"
    assert cuda.split()[:3] == ["onnxruntime", "cuda:0", "fp32"]
    assert "not here" in cuda
    assert half.split()[:5] == ["openvino", "cpu", "fp32", "in", "bf16"]
    assert "|Δscore| at most" in half
    assert half.endswith("within 0.01, on 10 images of the examples ← runs")
    assert single.split()[:3] == ["openvino", "cpu", "fp32"]
    assert other.split()[:3] == ["onnxruntime", "cpu", "fp32"]
    assert single.endswith("fp32, which the others are compared with")
    assert all("views/s" in line for line in (half, single, other))
    assert bf16.exists()


def test_a_processor_without_bf16(run: Run, tiny_detector: Path) -> None:
    ran = run("--explain", "--engine", tiny_detector, "--device", "cpu")
    half, single, other = ran.stdout.splitlines()[2:]
    assert "not here: the library, or instructions of the processor for bf16, are missing" in half
    assert single.endswith("← runs")
    assert not other.endswith("← runs")


def test_what_does_not_load(run: Run, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spai_runtime.engines.onnxruntime import OnnxEngine  # noqa: PLC0415
    from spai_runtime.errors import EngineError  # noqa: PLC0415

    def refuse(*_: object, **__: object) -> None:
        raise EngineError("it is refused")

    monkeypatch.setattr(OnnxEngine, "__init__", refuse)
    *_, last = run("--explain", "--engine", tiny_detector, "--device", "cpu").stdout.splitlines()
    assert last.endswith("does not load: it is refused")


def test_one_precision(run: Run, tiny_detector: Path) -> None:
    ran = run("--explain", "--engine", tiny_detector, "--device", "cpu", "--precision", "fp32")
    assert [line.split()[0] for line in ran.stdout.splitlines()[2:]] == ["openvino", "onnxruntime"]


@pytest.mark.parametrize("also", [("a.png",), ("--check",), ("--output", "a.csv"), ("--detector", "rine")])
def test_what_does_not_go_with_it(run: Run, tiny_detector: Path, also: tuple[str, ...]) -> None:
    ran = run("--explain", "--engine", tiny_detector, *also)
    assert ran.code == 2
    assert "--explain scores nothing" in ran.stderr
