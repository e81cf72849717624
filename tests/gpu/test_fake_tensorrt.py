"""The fake of TensorRT catches the mistakes that it is there to catch: addresses, memory, streams, releases."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.gpu.fakes import fake_tensorrt
from tests.gpu.fakes.copied import error, pinned
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_memory import POISON
from tests.gpu.fakes.fake_tensorrt_plans import plan_of
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT, ILogger, Severity

# y = 2 · float(x) for views of 64 bytes, the shortest rows that are aligned
DOUBLE = """
<ir_version: 9, opset_import: ["": 20]>
double (uint8[views,64] x) => (float[views,64] y)
<float two = {2.0}>
{
   [cast] f = Cast<to = 1>(x)
   [twice] y = Mul(f, two)
}
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeTensorRT:
    return fake_tensorrt.install(monkeypatch, machine)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(DOUBLE), tmp_path / "double.onnx")
    return tmp_path / "double.onnx"


SHAPES = [(1, 64), (4, 64), (4, 64)]


class Log(ILogger):  # type: ignore[misc, valid-type]
    """Keeps errors."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        assert severity == Severity.ERROR
        self.messages.append(msg)


def load(plan: Any, module: str = "tensorrt", *, host_code: bool = False) -> tuple[Any, list[str]]:
    """The engine or None, and what was logged."""
    trt = importlib.import_module(module)
    runtime = trt.Runtime(log := Log())
    runtime.engine_host_code_allowed = host_code
    return runtime.deserialize_cuda_engine(plan), log.messages


@pytest.fixture
def plan(fake: FakeTensorRT, graph: Path) -> bytes:
    return plan_of(fake, graph, "x", SHAPES)


class Run:
    """An execution of DOUBLE, for at most 4 rows, on its own stream and buffers."""

    def __init__(self, cupy: Any, plan: Any) -> None:
        self.trt = importlib.import_module("tensorrt")
        self.engine, _ = load(plan)
        self.context = self.engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.x, self.y = cupy.empty((4, 64), np.uint8), cupy.empty((4, 64), np.float32)
        assert self.shape(4)
        size = self.context.update_device_memory_size_for_shapes()
        self.scratch = cupy.cuda.alloc(size)
        self.context.set_device_memory(self.scratch.ptr, size)
        assert self.context.set_tensor_address("x", self.x.data.ptr)
        assert self.context.set_tensor_address("y", self.y.data.ptr)

    def shape(self, rows: int, length: int = 64) -> bool:
        return bool(self.context.set_input_shape("x", (rows, length)))

    def __call__(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream.ptr))


@pytest.fixture
def run(cupy: Any, plan: bytes) -> Run:
    return Run(cupy, plan)


def views(shift: int = 0) -> NDArray[np.uint8]:
    return np.arange(shift, shift + 4 * 64, dtype=np.int64).astype(np.uint8).reshape(4, 64)


# Executions


def test_an_execution_is_asynchronous(run: Run) -> None:
    assert run()
    run.x.set(pinned(views()), stream=run.stream)  # too late
    assert np.unique(run.y.get(stream=run.stream)).tolist() == [2 * POISON]


def test_shapes_outside_the_profile_and_less_memory_for_fewer_views(run: Run) -> None:
    assert not any((run.shape(5), run.shape(0), run.shape(1, 63)))
    most = run.context.update_device_memory_size_for_shapes()
    assert run.shape(1)
    less = run.context.update_device_memory_size_for_shapes()
    assert less < most
    run.context.set_device_memory(run.scratch.ptr, less)
    assert run()
    assert run.shape(2)
    assert not run()


def test_what_was_not_set(cupy: Any, run: Run) -> None:
    context = run.engine.create_execution_context(run.trt.ExecutionContextAllocationStrategy.STATIC)
    assert context.infer_shapes() == ["x"]
    assert not context.execute_async_v3(run.stream.ptr)
    context.set_input_shape("x", (1, 64))
    assert not context.execute_async_v3(run.stream.ptr)
    with pytest.raises(AssertionError, match="not 256-byte aligned"):
        context.set_tensor_address("x", cupy.empty((4, 64), np.uint8)[1].data.ptr)


def test_where_an_execution_may_not_run(cupy: Any, run: Run, plan: bytes) -> None:
    with pytest.raises(AssertionError, match="null stream"):
        run.context.execute_async_v3(0)
    assert run()
    other = cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(AssertionError, match="one execution context runs on two streams"):
        run.context.execute_async_v3(other.ptr)
    second = Run(cupy, plan)
    with cupy.cuda.Device(1), pytest.raises(AssertionError, match="another GPU"):
        second.context.execute_async_v3(cupy.cuda.Stream(non_blocking=True).ptr)
    third = Run(cupy, plan)
    third.context.set_device_memory(run.scratch.ptr, 1 << 12)
    with pytest.raises(AssertionError, match="two contexts compute in the same memory"):
        third()


def test_buffers_that_are_gone_or_too_small(cupy: Any, run: Run, machine: Machine) -> None:
    small = cupy.empty((1, 64), np.float32)
    run.context.set_tensor_address("y", small.data.ptr)
    assert run()
    with error(cupy, "IllegalAddress"):
        run.stream.synchronize()
    machine.gpus[0].failed = None
    run.context.set_tensor_address("y", run.y.data.ptr)
    assert run()
    del run.y
    with pytest.raises(AssertionError, match="freed"):
        run.stream.synchronize()


def test_the_first_run_of_a_shape_is_not_captured(cupy: Any, run: Run, fake: FakeTensorRT) -> None:
    run.stream.begin_capture()
    assert not run()
    with error(cupy, "CaptureInvalidated"):
        run.stream.end_capture()
    assert run()
    run.stream.begin_capture()
    assert run()
    graph = run.stream.end_capture()
    run.shape(1)  # which is not the graph's business any more
    for shift in (1, 2):
        run.x.set(views(shift), stream=run.stream)
        graph.launch(run.stream)
        np.testing.assert_array_equal(run.y.get(stream=run.stream), 2.0 * views(shift))
    assert fake.executions == [(0, (4, 64), False), (0, (4, 64), True)]


def test_no_memory_and_no_gpu(cupy: Any, run: Run, machine: Machine) -> None:
    machine.fail_allocation()
    assert run.engine.create_execution_context() is None
    machine.lose(0, after=1)
    assert run() and run()
    with error(cupy, "DevicesUnavailable"):
        run.stream.synchronize()
    assert not run()
    assert run.engine.create_execution_context() is None
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        run.trt.Runtime(Log())


# Plans


def test_plans_are_of_one_release_and_one_gpu(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, fake: FakeTensorRT, graph: Path
) -> None:
    whole_flags = ("VERSION_COMPATIBLE",)
    plan, whole, lean = (
        plan_of(fake, graph, "x", SHAPES, *flags) for flags in ((), whole_flags, (*whole_flags, "EXCLUDE_LEAN_RUNTIME"))
    )
    assert load(plan)[0] is not None
    assert "EngineHostCodeAllowed is required" in load(whole)[1][0]
    assert load(b"nonsense")[0] is None
    fake_tensorrt.install(monkeypatch, machine, lean=True)
    assert not hasattr(importlib.import_module("tensorrt_lean"), "Builder")
    assert load(lean, "tensorrt_lean")[0] is not None
    assert "version compatible plans only" in load(plan, "tensorrt_lean")[1][0]
    machine.gpus[0].capability = (8, 9)
    assert "expecting compute 8.9 got compute 9.0" in load(plan)[1][0]
    machine.gpus[0].capability = (9, 0)
    fake_tensorrt.install(monkeypatch, machine, "11.5.0.1")
    for refused in (plan, lean):
        assert "expecting library version 11.4.0.106 got 11.5.0.1" in load(refused)[1][0]
    assert load(whole, host_code=True)[0] is not None


@pytest.mark.usefixtures("fake")
def test_loggers_that_are_none() -> None:
    trt = importlib.import_module("tensorrt")
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        trt.Runtime(None)
