"""The contenders of benchmarks/gpu on a machine without a GPU, and what is said of such a machine."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest
import torch
from gpu.bench import Gpu
from gpu.end_to_end import Photographs, end_to_end
from gpu.engine_runners import engine_contenders
from gpu.memory import Compared
from gpu.settings import Settings
from gpu.torch_runners import recorded, torch_contenders
from text import first_line, pathless, slug

from tests.gpu.fakes import fake_cupy, plan_writer
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT
from tests.support.desk import BATCHES, Desk

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A machine with a GPU and TensorRT."""
    return plan_writer.install(monkeypatch, fake_cupy.install(monkeypatch)).fake


def test_pytorch_runs_upstreams_formulation_and_ours_in_bf16(real: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, and with a compiler that compiles nothing."""
    modes: list[Any] = []
    resets: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: modes.append(options) or module)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    model = models.random_model("tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    real.bench.run(torch_contenders(model, "reduce-overhead", device="cpu"), 4)
    upstream, compiled = real.results.rows
    assert (upstream["backend"], upstream["precision"], upstream["form"]) == ("PyTorch", "fp32", "upstream")
    assert (compiled["backend"], compiled["precision"], compiled["form"]) == (
        "torch.compile",
        "bf16",
        "reduce-overhead",
    )
    assert modes == [{"mode": "reduce-overhead", "dynamic": False}]
    assert resets == [1]
    assert 0 < upstream["relative_difference"] < 1e-5
    assert 1e-4 < compiled["relative_difference"] < 5e-3
    assert all("tiles_per_s" in row for row in real.results.rows)
    assert [row["graph"] for row in real.results.rows] == [False, False]  # eager, and a compiler that records nothing
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("manager", "found"),
    [
        (lambda *_, **__: None, False),
        (lambda *_, **__: SimpleNamespace(get_roots=lambda: iter(())), False),
        (lambda *_, **__: SimpleNamespace(get_roots=lambda: iter((1,))), True),
        (lambda *_, **__: SimpleNamespace(), None),
        (lambda _: None, None),
    ],
)
def test_what_is_known_of_torch_compiles_graphs(monkeypatch: pytest.MonkeyPatch, manager: Any, found: Any) -> None:
    """None where PyTorch keeps them otherwise than it did."""
    trees = SimpleNamespace(get_manager=manager)
    monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", trees)
    assert recorded(torch.device("cuda")) is found
    assert recorded(torch.device("cpu")) is False


def test_tensorrt_through_the_engines_of_the_runtime(real: Desk, plans: FakeTensorRT, tmp_path: Path) -> None:
    """Plans of a batch size each, slots, the cutting kernel, and `spai-run`, down to TensorRT's calls."""
    real.bench.gpu = Gpu(lambda: Compared(lambda: plans.machine.gpus[0].used), lambda: None, {"fp16": 1e-3})
    (contender,) = [found for found in engine_contenders("tiny", 2) if found.name == "TensorRT fp16"]
    for batch in BATCHES:
        real.bench.run([contender], batch)
    for row, batch, default in zip(real.results.rows, (4, 1), (4, 2), strict=True):
        assert "error" not in row and "missing" not in row, row
        assert (row["batch"], row["default_batch"], row["graph"]) == (batch, default, True)
        assert 1e-6 < row["relative_difference"] < 1e-3
        assert row["fraction_of_matmul"] == pytest.approx(row["tiles_per_s"] * real.bench.reference.flop_per_tile / 1e9)
        assert row["memory_mb"] * 1e6 > 2 * batch * 32 * 32 * 3
    photographs = Photographs.write("some", tmp_path / "photographs", ((64, 40, 2), (96, 64, 2)))
    assert [path.parent.name for path in photographs.paths] == ["64x40", "96x64"] * 2
    end_to_end(real.bench, contender, 4, photographs)
    (run,) = real.results.content["end_to_end"]
    assert "error" not in run and "missing" not in run, run
    assert run["tiles_per_image"] == (5 + 6) / 2  # five crops where there are fewer than four tiles
    assert run["megapixels"] == pytest.approx((64 * 40 + 96 * 64) / 2e6)
    assert run["images_a_round"] % run["files"] == 0
    assert run["graph"] is True
    assert run["share_of_encoder"] == pytest.approx(run["images_per_s"] / run["encoder_images_per_s"])
    assert run["decode_images_per_s"] > 0
    assert plans.machine.gpus[0].used == 0


def test_what_is_missing_is_said_by_the_back_end_itself(real: Desk, tmp_path: Path) -> None:
    """On a machine without a GPU, every engine's row is a sentence, and nothing is exported for it."""
    contenders = engine_contenders("tiny", 4)
    real.bench.run(contenders, 4)
    assert len(real.results.rows) == len(contenders) == 12
    assert all(found.keys() == {"backend", "precision", "form", "batch", "missing"} for found in real.results.rows)
    assert len({contender.name for contender in contenders}) == 12
    assert not (tmp_path / "spai-benchmarks").exists()


def test_the_machine_is_described_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the packages lie on the path and are not installed."""
    path = ROOT / "benchmarks" / "conftest.py"
    spec = importlib.util.spec_from_file_location("benchmarks_conftest", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.machine()["libraries"]["numpy"] == np.__version__

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", none)
    found = module.machine()
    assert found["libraries"] == {}
    assert platform.node() not in json.dumps(found)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "benchmarks/gpu", "--json-results"]
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, env=blind, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"SKIPPED \[1\] .*: PyTorch sees no NVIDIA GPU", done.stdout)
    assert not list(tmp_path.iterdir())


def test_settings() -> None:
    assert Settings.of({}) == Settings()
    found = Settings.of(
        {"SPAI_BENCH_BATCHES": "2,8", "SPAI_BENCH_SECONDS": "0.5", "SPAI_BENCH_BACKENDS": "TensorRT, x"}
    )
    assert (found.batches, found.seconds, found.model) == ((2, 8), 0.5, "vitb")
    assert found.wants("TensorRT fp16") and not found.wants("PyTorch fp32 upstream")
    assert Settings().wants("anything")
    document = sys.modules["gpu.settings"].__doc__ or ""
    assert re.findall(r"^`SPAI_BENCH_(\w+)`", document, re.MULTILINE) == [name.upper() for name in vars(Settings())]


def test_names_of_files_and_errors() -> None:
    assert slug("NVIDIA GeForce RTX 4090 (x)") == "nvidia-geforce-rtx-4090-x"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("a\nb")) == "ValueError: a"
    assert pathless("ONNX Runtime refuses /tmp/x-1/y.z/encoder.onnx: no") == "ONNX Runtime refuses encoder.onnx: no"
    assert first_line(OSError("[Errno 2] no: '/home/me/lib.so'")) == "OSError: [Errno 2] no: 'lib.so'"
    assert pathless("see https://a.b/c/d, images/s, and/or 3 / 4") == "see https://a.b/c/d, images/s, and/or 3 / 4"
