"""benchmarks/gpu on a machine without a GPU: its bookkeeping under contenders that are made up, and its table."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure
import models
import numpy as np
import pytest
import torch
from gpu import table
from gpu.bench import Bench, Gpu
from gpu.contender import Contender
from gpu.end_to_end import Photographs, end_to_end
from gpu.engine_runners import engine_contenders
from gpu.reference import DisagreementError, Reference
from gpu.results import Results, first_line, pathless, slug
from gpu.settings import Settings
from gpu.timing import FEWEST, Peak, latencies, percentiles, steady
from gpu.torch_runners import torch_contenders
from numpy.typing import NDArray

from spai_runtime.engines import DeviceMemoryError
from spai_runtime.errors import EngineError
from spai_train.models.spai import SPAI, SPAIConfig
from tests.gpu.fakes import fake_cupy, fake_tensorrt
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT

ROOT = Path(__file__).parents[2]
MARKER = "<!-- from benchmarks/results/gpu-*.json -->"
FACTS = {
    "model": "vitb",
    "device": {"name": "NVIDIA H200", "context_mb": 500.0},
    "settings": {"batches": [4, 1]},
}
BATCHES = (4, 1)


class Clock:
    """Seconds that pass only where a lane says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeLane:
    """Knows its features, takes its time, and keeps count."""

    def __init__(self, clock: Clock, seconds: float, features: Callable[[], NDArray[np.float32]]) -> None:
        self.clock, self.seconds, self.features = clock, seconds, features
        self.under_way = False
        self.launches = 0

    def launch(self) -> None:
        assert not self.under_way
        self.under_way, self.launches = True, self.launches + 1

    def wait(self) -> NDArray[np.float32]:
        assert self.under_way
        self.under_way = False
        self.clock.now += self.seconds
        return self.features()


class FakeRunner:
    """Two lanes; `closed` once its memory is given back."""

    default_batch: int | None = 4

    def __init__(self, *lanes: FakeLane) -> None:
        self.lanes, self.closed = lanes, False

    def close(self) -> None:
        self.closed = True


class Desk:
    """A Bench with the tiny model and made-up contenders."""

    def __init__(self, model: SPAI, folder: Path, clock: Any, **settings: Any) -> None:
        side = model.config.tile_size
        tiles = np.random.default_rng(0).integers(0, 256, (max(BATCHES), side, side, 3), dtype=np.uint8)
        with torch.inference_mode():
            self.features = model.encoder(torch.from_numpy(tiles)).numpy()
        self.clock, self.folder, self.memory, self.runners = clock, folder, [1_000_000], list[FakeRunner]()
        self.results = Results(folder, dict(FACTS))
        self.freed = 0
        gpu = Gpu(lambda: self.memory[0], self._free, {"fp16": 100.0, "fp8": "RuntimeError: no fp8"})
        self.bench = Bench(
            gpu, Reference(model, tiles), self.results, Settings(batches=BATCHES, **settings), clock=clock
        )

    def contender(
        self,
        name: str,
        seconds: float = 0.01,
        off_by: float = 0.0,
        fails: Callable[[int, int], None] = lambda *_: None,
        precision: str = "fp16",
    ) -> Contender:
        """:param fails: batch size, number of the wait → what may raise; the load is number 0"""

        def load(tiles: NDArray[np.uint8]) -> FakeRunner:
            calls = 0

            def features() -> NDArray[np.float32]:
                nonlocal calls
                calls += 1
                fails(len(tiles), calls)
                return (self.features[: len(tiles)] * (1 + off_by)).astype(np.float32)

            fails(len(tiles), 0)
            self.memory[0] += 250_000_000
            runner = FakeRunner(*(FakeLane(self.clock, seconds, features) for _ in range(2)))
            self.runners.append(runner)
            return runner

        return Contender(name, precision, load)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.results.rows if row["backend"] == name]

    def file(self) -> Any:
        return json.loads((self.folder / "gpu-nvidia-h200.json").read_text(encoding="utf-8"))

    def _free(self) -> None:
        self.freed += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that turns are timed by, too."""
    clock = Clock()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=clock, process_time=clock))
    return clock


@pytest.fixture
def desk(tiny_config: SPAIConfig, tmp_path: Path, clock: Clock) -> Desk:
    torch.manual_seed(0)
    return Desk(SPAI(tiny_config).eval(), tmp_path, clock)


@pytest.fixture
def real(tiny_config: SPAIConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A clock that goes by itself, and the benchmarks' tiny model, which is exported to a folder of the test's."""
    monkeypatch.setitem(models.CONFIGS, "tiny", tiny_config)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Desk(models.random_model("tiny"), tmp_path, time.perf_counter, seconds=0.01, rounds=1)


def raising(error: BaseException, batch: int = 4, call: int = 0) -> Callable[[int, int], None]:
    """Raises at that wait of that batch size, and at those that follow."""

    def fails(size: int, number: int) -> None:
        if size == batch and number >= call:
            raise error

    return fails


def test_figures_of_a_contender_are_those_of_its_clock(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", seconds=0.01)], 4)
    (row,) = desk.results.rows
    assert row["latency_p50_ms"] == pytest.approx(10)
    assert row["latency_p99_ms"] == pytest.approx(10)
    assert row["launches"] in (100, 101)  # one second of them
    assert row["tiles_per_s"] == pytest.approx(400)
    flop = desk.bench.reference.flop_per_tile
    assert row["fraction_of_matmul"] == pytest.approx(400 * flop / 100e12)
    assert row["memory_mb"] == pytest.approx(250)
    assert row["largest_difference"] == 0
    assert row["default_batch"] == 4
    assert (row["backend"], row["precision"], row["batch"]) == ("ours", "fp16", 4)
    assert desk.runners[0].closed
    assert desk.freed >= 1


def test_contenders_take_turns(desk: Desk) -> None:
    order: list[str] = []

    def watched(name: str) -> Contender:
        return desk.contender(name, seconds=0.25, fails=lambda *_: order.append(name))

    desk.bench.run([watched("a"), watched("b")], 4)
    rounds = [name for index, name in enumerate(order) if index == 0 or order[index - 1] != name]
    assert rounds == ["a", "b"] * 4  # each alone, then three rounds


def test_no_share_of_a_rate_that_was_not_measured(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", precision="fp8"), desk.contender("theirs", precision="int8")], 4)
    rows = desk.results.rows
    assert [row["tiles_per_s"] for row in rows] == [pytest.approx(400)] * 2
    assert not any("fraction_of_matmul" in row for row in rows)


def test_a_missing_back_end_is_one_row_with_its_sentence(desk: Desk) -> None:
    missing = desk.contender("TensorRT", fails=raising(EngineError("TensorRT is not installed: pip install it")))
    for batch in BATCHES:
        desk.bench.run([missing, desk.contender("ours")], batch)
    (row,) = desk.rows("TensorRT")
    assert row == {
        "backend": "TensorRT",
        "precision": "fp16",
        "form": "",
        "batch": 4,
        "missing": "TensorRT is not installed: pip install it",
    }
    assert [row["tiles_per_s"] for row in desk.rows("ours")] == [pytest.approx(400), pytest.approx(100)]


@pytest.mark.parametrize("call", [0, 1, 8, 40, 200])
def test_whatever_fails_is_a_row_and_others_go_on(desk: Desk, call: int) -> None:
    """At the load, at the first launch, while it is warmed up, in the latencies, in the turns."""
    broken = desk.contender("broken", fails=raising(RuntimeError("no kernel\nfits"), call=call))
    desk.bench.run([broken, desk.contender("ours")], 4)
    desk.bench.run([broken, desk.contender("ours")], 1)
    (row,) = desk.rows("broken")
    assert row["error"] == "RuntimeError: no kernel"
    assert "tiles_per_s" not in row
    assert ("latency_p50_ms" in row) == (call == 200)
    assert len(desk.rows("ours")) == 2
    assert all("tiles_per_s" in row for row in desk.rows("ours"))
    assert all(runner.closed for runner in desk.runners)


def test_memory_that_does_not_suffice_is_an_error_of_that_batch_size(desk: Desk) -> None:
    full = desk.contender("full", fails=raising(DeviceMemoryError("cuda:0 has too little memory left"), batch=1))
    desk.bench.run([full], 4)
    desk.bench.run([full], 1)
    first, second = desk.rows("full")
    assert "tiles_per_s" in first
    assert second["error"] == "DeviceMemoryError: cuda:0 has too little memory left"
    assert "missing" not in second


@pytest.mark.parametrize("off_by", [0.002, float("nan"), float("inf")])
def test_features_of_something_else_are_not_timed(desk: Desk, off_by: float) -> None:
    desk.bench.run([desk.contender("wrong", off_by=off_by)], 4)
    (row,) = desk.results.rows
    assert row["error"].startswith("DisagreementError: features are")
    assert not {"tiles_per_s", "latency_p50_ms", "largest_difference", "memory_mb"} & row.keys()


def test_differences_are_those_of_numpy(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", off_by=0.0005)], 4)
    (row,) = desk.results.rows
    assert row["largest_difference"] == pytest.approx(0.0005 * np.abs(desk.features).max(), rel=1e-3)
    assert row["relative_difference"] == pytest.approx(0.0005, rel=1e-3)


def test_a_batch_larger_than_what_is_compared(desk: Desk) -> None:
    """Features of tiles beyond the compared ones must at least be finite."""
    features = np.concatenate([desk.features, np.full((9, desk.features.shape[1]), np.nan, np.float32)])
    with pytest.raises(DisagreementError, match="not finite"):
        desk.bench.reference.compare(features, "fp8")
    features[4:] = 0
    assert desk.bench.reference.compare(features, "fp32")["largest_difference"] == 0


def test_when_the_time_is_up_nothing_is_begun(desk: Desk) -> None:
    desk.bench.run([desk.contender("slow", seconds=30), desk.contender("late")], 4)
    (late,) = desk.rows("late")
    assert late["missing"] == "not begun within 420 s; SPAI_BENCH_LIMIT gives it more"
    assert "tiles_per_s" in desk.rows("slow")[0]
    assert len(desk.runners) == 1


def test_a_run_that_is_cut_off_leaves_what_it_has(desk: Desk) -> None:
    cut = desk.contender("cut", fails=raising(KeyboardInterrupt(), batch=1))
    desk.bench.run([cut], 4)
    with pytest.raises(KeyboardInterrupt):
        desk.bench.run([desk.contender("before"), cut, desk.contender("after")], 1)
    left = desk.file()
    assert left["complete"] is False
    by_name = {(row["backend"], row["batch"]): row for row in left["rows"]}
    assert by_name["cut", 4]["tiles_per_s"] == pytest.approx(400)
    assert by_name["before", 1]["latency_p50_ms"] == pytest.approx(10)
    assert "tiles_per_s" not in by_name["before", 1]
    assert by_name["after", 1].keys() == {"backend", "precision", "form", "batch"}
    assert [path.name for path in desk.folder.iterdir()] == ["gpu-nvidia-h200.json"]
    assert all(runner.closed for runner in desk.runners)


def test_the_file_is_written_after_every_contender(desk: Desk) -> None:
    seen: list[int] = []

    def look(_: int, call: int) -> None:
        if call == 0:
            seen.append(sum("latency_p50_ms" in row for row in desk.file()["rows"]))

    desk.bench.run([desk.contender("first"), *(desk.contender(name, fails=look) for name in "abc")], 4)
    assert seen == [1, 2, 3]
    desk.results.finish()
    assert desk.file()["complete"] is True


def test_no_fraction_has_more_than_four_digits_and_none_is_nan(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", seconds=1 / 3)], 4)
    desk.results.write()
    assert desk.file()["rows"][0]["latency_p50_ms"] == 333.3
    desk.results.rows[0]["tiles_per_s"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        desk.results.write()


def test_another_model_has_another_file(tmp_path: Path) -> None:
    """A try with a small model does not overwrite what the table is made from."""
    Results(tmp_path, {**FACTS, "model": "tiny"}).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-nvidia-h200-tiny.json"]


def test_percentiles() -> None:
    seconds = np.random.default_rng(0).gamma(2, 0.01, 137).tolist()
    found = percentiles(seconds)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    assert found["latency_p50_ms"] == pytest.approx(1e3 * statistics.median(seconds))
    assert found["latency_p99_ms"] == pytest.approx(1e3 * cuts[98])
    assert found["launches"] == 137


def test_latencies_are_of_one_launch_at_a_time() -> None:
    clock = Clock()
    lane = FakeLane(clock, 0.5, lambda: np.zeros((1, 1), np.float32))
    assert latencies(lane, 1, clock) == [0.5] * FEWEST
    assert len(latencies(lane, 100, clock)) == 200
    assert not lane.under_way


@pytest.mark.parametrize("launches", [1, 2, 3, 8])
def test_steady_keeps_two_launches_under_way(launches: int) -> None:
    clock, most = Clock(), 0

    def count() -> NDArray[np.float32]:
        nonlocal most
        most = max(most, 1 + sum(lane.under_way for lane in lanes))
        return np.zeros((1, 1), np.float32)

    lanes = [FakeLane(clock, 1, count) for _ in range(2)]
    steady(lanes, launches)
    assert sum(lane.launches for lane in lanes) == launches
    assert not any(lane.under_way for lane in lanes)
    assert clock.now == launches
    assert most == min(launches, 2)


def test_peak_is_what_was_seen_in_between() -> None:
    used = iter([100, *[700] * 3, *[150] * 10_000])
    with Peak(lambda: next(used)) as peak:
        time.sleep(0.1)
    assert peak.grown == 600


def test_operations_of_a_tile(tiny_config: SPAIConfig) -> None:
    """Two a multiplication: patch embedding, blocks, projectors and context of three branches, and the filter."""
    config, model = tiny_config, SPAI(tiny_config).eval()
    side, width, p, blocks = config.tile_size, config.width, config.projection, len(config.blocks)
    patches = (side // config.patch_size) ** 2
    tokens, hidden = patches + 1, int(config.mlp_ratio * width)
    embedding = patches * 3 * config.patch_size**2 * width
    block = tokens * width * (4 * width + 2 * hidden) + 2 * tokens * tokens * width
    projectors = blocks * patches * (width * p + (config.projection_layers - 1) * p * p)
    layers = (config.projection_layers - 1) * p * p
    context = blocks * (2 * p * p + layers) + p * p + layers
    encoder = 2 * (3 * (embedding + config.depth * block + projectors) + context)
    found = Reference(model, np.zeros((1, side, side, 3), np.uint8)).flop_per_tile
    filtering = found - encoder
    assert 0 < filtering <= 2 * 3 * 4 * 2 * side * side * side  # at most four full complex products a channel


def test_pytorch_runs_upstreams_formulation_and_ours_in_bf16(real: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, and with a compiler that compiles nothing."""
    modes: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: modes.append(options) or module)
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
    assert 0 < upstream["relative_difference"] < 1e-5
    assert 1e-4 < compiled["relative_difference"] < 5e-3
    assert all("tiles_per_s" in row for row in real.results.rows)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A machine with a GPU and TensorRT."""
    return fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch))


def test_tensorrt_through_the_engines_of_the_runtime(real: Desk, plans: FakeTensorRT, tmp_path: Path) -> None:
    """Plans of a batch size each, slots, the cutting kernel, and `spai-run`, down to TensorRT's calls."""
    real.bench.gpu = Gpu(lambda: plans.machine.gpus[0].used, lambda: None, {"fp16": 1e-3})
    (contender,) = [found for found in engine_contenders("tiny", 2) if found.name == "TensorRT fp16"]
    for batch in BATCHES:
        real.bench.run([contender], batch)
    for row, batch, default in zip(real.results.rows, (4, 1), (4, 2), strict=True):
        assert "error" not in row and "missing" not in row, row
        assert (row["batch"], row["default_batch"]) == (batch, default)
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
    assert run["share_of_encoder"] == pytest.approx(run["images_per_s"] / run["encoder_images_per_s"])
    assert run["decode_images_per_s"] > 0
    assert plans.machine.gpus[0].used == 0


def test_what_is_missing_is_said_by_the_back_end_itself(real: Desk, tmp_path: Path) -> None:
    """On a machine without a GPU, every engine's row is a sentence, and nothing is exported for it."""
    contenders = engine_contenders("tiny", 4)
    real.bench.run(contenders, 4)
    assert len(real.results.rows) == len(contenders) == 9
    assert all(found.keys() == {"backend", "precision", "form", "batch", "missing"} for found in real.results.rows)
    assert len({contender.name for contender in contenders}) == 9
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
    return {"backend": backend, "precision": precision, "form": form, "batch": batch, **figures, **found, **more}


def whole_run(backend: str, images: str, share: float, decoding: float, memory: float) -> dict[str, Any]:
    rates = {"images_per_s": 700.0 * share, "encoder_images_per_s": 700.0, "decode_images_per_s": decoding}
    named = {"backend": backend, "precision": "fp16", "form": "", "images": images, "batch": 32, "default_batch": 32}
    return {**named, **rates, "share_of_encoder": share, "memory_mb": memory, "workers": 16}


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
        "not run",
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


def test_the_readme_has_the_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(MARKER) == 1
    assert readme.partition(MARKER)[2].lstrip().startswith(table.markdown(table.committed()))
