"""The fakes of CuPy and TensorRT catch the mistakes that they are there to catch."""

import ctypes
import gc
import importlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.gpu.fakes import fake_cupy, fake_tensorrt
from tests.gpu.fakes.fake_cupy import Machine
from tests.gpu.fakes.fake_tensorrt import FakeTensorRT

POISON = 0xCD

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
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_cupy.install(monkeypatch, gpus=2, memory=1 << 20)


@pytest.fixture
def cupy(machine: Machine) -> Any:  # noqa: ARG001
    return importlib.import_module("cupy")


def pinned(values: Any) -> NDArray[Any]:
    values = np.asarray(values)
    array = importlib.import_module("cupyx").empty_pinned(values.shape, values.dtype)
    array[...] = values
    return array


def error(cupy: Any, name: str) -> Any:
    return pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=name)


class Copied:
    """Eight bytes on their way to the GPU and back, with nothing waited for."""

    def __init__(self, cupy: Any, values: NDArray[np.uint8]) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.array = cupy.empty(values.shape, np.uint8)
        self.array.set(values, stream=self.stream)
        self.back = pinned(np.zeros_like(values))
        self.back[...] = POISON
        self.array.get(stream=self.stream, out=self.back, blocking=False)


# Streams and memory


def test_nothing_has_happened_before_somebody_waits(cupy: Any) -> None:
    copied = Copied(cupy, source := pinned(np.arange(8, dtype=np.uint8)))
    assert (copied.back == POISON).all()
    copied.stream.synchronize()
    np.testing.assert_array_equal(copied.back, source)


def test_memory_begins_as_poison(cupy: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    array = cupy.empty((3, 5), np.uint8)
    assert array.data.ptr % 512 == 0
    assert (array.get(stream=stream) == POISON).all()


def test_a_source_that_changes_before_it_was_copied(cupy: Any) -> None:
    source = pinned(np.zeros(8, np.uint8))
    copied = Copied(cupy, source)
    source[:] = 9
    copied.stream.synchronize()
    assert (copied.back == 9).all()


def test_a_pinned_source_that_is_freed_before_it_was_copied(cupy: Any) -> None:
    copied = Copied(cupy, pinned(np.zeros(8, np.uint8)))  # which nobody else holds
    gc.collect()
    copied.stream.synchronize()
    assert (copied.back == POISON).all()


def test_pageable_memory_is_copied_at_once_and_counted(cupy: Any, machine: Machine) -> None:
    source = np.zeros(8, np.uint8)
    copied = Copied(cupy, source)
    source[:] = 9
    copied.stream.synchronize()
    assert (copied.back == 0).all()
    assert machine.pageable_copies == 1
    with pytest.raises(AssertionError, match="not pinned"):
        copied.array.get(stream=copied.stream, out=source, blocking=False)


def test_another_stream_must_wait(cupy: Any) -> None:
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    array, back = cupy.empty(4, np.uint8), pinned(np.zeros(4, np.uint8))
    array.set(pinned(ones := np.ones(4, np.uint8)), stream=first)
    array.get(stream=second, out=back, blocking=False)
    second.synchronize()
    assert (back == POISON).all()
    source = pinned(ones)
    array.set(source, stream=first)
    second.wait_event(first.record())
    array.get(stream=second, out=back, blocking=False)
    second.synchronize()
    assert (back == 1).all()


def test_an_event_stands_for_where_it_was_recorded(cupy: Any) -> None:
    stream, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)
    array, sources = cupy.empty(4, np.uint8), [pinned(np.full(4, value, np.uint8)) for value in (1, 2)]
    backs = [pinned(np.zeros(4, np.uint8)) for _ in sources]
    for source, back in zip(sources, backs, strict=True):
        array.set(source, stream=stream)
        array.get(stream=stream, out=back, blocking=False)
        if source is sources[0]:
            stream.record(event)
    event.synchronize()
    assert [back[0] for back in backs] == [1, 0]


def test_events_that_are_done_and_that_are_not(cupy: Any, machine: Machine) -> None:
    stream, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)
    assert event.done  # never recorded
    array = cupy.empty(4, np.uint8)
    array.set(np.ones(4, np.uint8), stream=stream)
    stream.record(event)
    assert not event.done
    machine.progress(1)
    assert not event.done
    machine.progress(1)
    assert event.done


def test_an_eager_machine_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, eager=True)
    copied = Copied(importlib.import_module("cupy"), np.ones(8, np.uint8))
    assert (copied.back == 1).all()


@pytest.mark.parametrize(("reader", "value"), [("own", 1), ("other", POISON)])
def test_memory_is_freed_in_the_order_of_its_stream(cupy: Any, reader: str, value: int) -> None:
    """Of that where it was allocated; any other finds in it what somebody else may have put there."""
    streams = {name: cupy.cuda.Stream(non_blocking=True) for name in ("own", "other")}
    own, source, back = streams["own"], pinned(np.ones(4, np.uint8)), pinned(np.zeros(4, np.uint8))
    with own:
        array = cupy.empty(4, np.uint8)
    array.set(source, stream=own)
    streams["other"].wait_event(own.record())
    array.get(stream=streams[reader], out=back, blocking=False)
    del array
    streams[reader].synchronize()
    assert (back == value).all()


def test_a_graph_that_outlives_its_arrays(cupy: Any) -> None:
    source = pinned(np.ones(4, np.uint8))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        array = cupy.empty(4, np.uint8)
        stream.begin_capture()
        array.set(source, stream=stream)
        graph = stream.end_capture()
        del array
        graph.launch()
        with pytest.raises(AssertionError, match="freed"):
            stream.synchronize()


def test_writing_to_what_was_freed(cupy: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.empty(4, np.uint8).set(np.ones(4, np.uint8), stream=stream)  # allocated on no stream
    with pytest.raises(AssertionError, match="freed"):
        stream.synchronize()


def test_writing_beyond_the_end(cupy: Any) -> None:
    stream, array = cupy.cuda.Stream(non_blocking=True), cupy.empty(4, np.uint8)
    stream.enqueue(lambda: ctypes.memset(array.data.ptr, 0, 5))
    with pytest.raises(AssertionError, match="written beyond 4 bytes of GPU 0"):
        stream.synchronize()


def test_slices_are_views(cupy: Any) -> None:
    stream, array = cupy.cuda.Stream(non_blocking=True), cupy.empty((4, 2), np.uint8)
    array.set(np.zeros((4, 2), np.uint8))  # without a stream it is done at once
    with stream:
        array[1:3] = 7
        array[3] = array[1]
    assert array[1:].data.ptr == array.data.ptr + 2
    np.testing.assert_array_equal(array.get(stream=stream), [[0, 0], [7, 7], [7, 7], [7, 7]])
    with pytest.raises(ValueError, match="Shape mismatch"):
        array[:3].set(np.zeros((4, 2), np.uint8), stream=stream)
    with pytest.raises(TypeError, match="int64 array cannot be set to uint8 array"):
        array.set(np.zeros((4, 2), np.int64), stream=stream)


def test_what_lies_on_the_gpu_already(cupy: Any) -> None:
    class Decoded:
        def __init__(self) -> None:
            self.array = cupy.empty((2, 3), np.uint8)
            self.__cuda_array_interface__ = {**self.array.__cuda_array_interface__, "strides": None}

    stream, decoded = cupy.cuda.Stream(non_blocking=True), Decoded()
    array = cupy.asarray(decoded)
    del decoded
    array.set(np.ones((2, 3), np.uint8), stream=stream)  # which the array keeps
    assert (array.get(stream=stream) == 1).all()


def test_names_that_this_project_does_not_use(cupy: Any) -> None:
    for place, name in ((cupy, "zeros"), (cupy.cuda, "Graphs"), (cupy.empty(1, np.uint8), "sum")):
        with pytest.raises(AttributeError):
            getattr(place, name)


# Devices


def test_only_the_gpu_that_was_chosen_is_touched(cupy: Any, machine: Machine) -> None:
    with cupy.cuda.Device(1):
        copied = Copied(cupy, pinned(np.ones(8, np.uint8)))
        copied.stream.synchronize()
    assert machine.touched == {1}
    thread = threading.Thread(target=pinned, args=(np.ones(1),))  # whose current GPU is 0
    thread.start()
    thread.join()
    assert machine.touched == {0, 1}


def test_what_belongs_to_another_gpu(cupy: Any) -> None:
    with cupy.cuda.Device(1):
        stream, array, event = cupy.cuda.Stream(non_blocking=True), cupy.empty(4, np.uint8), cupy.cuda.Event()
    mine = cupy.cuda.Stream(non_blocking=True)
    for use in (
        lambda: array.set(np.ones(4, np.uint8), stream=mine),
        lambda: array.set(np.ones(4, np.uint8), stream=stream),
        lambda: cupy.empty(4, np.uint8).set(np.ones(4, np.uint8), stream=stream),
        lambda: mine.wait_event(event),
        stream.synchronize,
        stream.__enter__,
    ):
        with pytest.raises(AssertionError, match=r"GPU 1 is used while GPU 0 is current|one GPU waits for another"):
            use()
    with error(cupy, "InvalidResourceHandle"):
        mine.record(event)


def test_the_null_stream(cupy: Any) -> None:
    array = cupy.empty(4, np.uint8)
    for use in (array.get, cupy.cuda.Event().record, lambda: array.__setitem__(slice(2), 1)):
        with pytest.raises(AssertionError, match="null stream"):
            use()


def test_the_memory_of_a_gpu_ends(cupy: Any, machine: Machine) -> None:
    array = cupy.empty(1 << 19, np.uint8)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match=r"allocating 524,800 bytes .*so far: 524,288 bytes"):
        cupy.empty((1 << 19) + 1, np.uint8)
    with cupy.cuda.Device(1):
        cupy.cuda.alloc(1 << 20)
    assert (machine.gpus[0].used, machine.gpus[1].used, machine.gpus[1].peak) == (1 << 19, 0, 1 << 20)
    del array
    assert cupy.cuda.runtime.memGetInfo() == (1 << 20, 1 << 20)


def test_an_allocation_that_is_made_to_fail(cupy: Any, machine: Machine) -> None:
    machine.fail_allocation(after=1)
    cupy.empty(1, np.uint8)
    with pytest.raises(MemoryError):
        cupy.empty(1, np.uint8)
    cupy.empty(1, np.uint8)


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, gpus=0)
    runtime = importlib.import_module("cupy").cuda.runtime
    with pytest.raises(runtime.CUDARuntimeError, match=r"^cudaErrorInsufficientDriver: CUDA driver version") as caught:
        runtime.getDeviceCount()
    assert caught.value.status == 35


def test_what_gpus_there_are(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    assert runtime.getDeviceCount() == 2
    wanted = {"name": b"NVIDIA H100", "major": 9, "minor": 0, "totalGlobalMem": 1 << 20}
    assert runtime.getDeviceProperties(1) == wanted
    with error(cupy, "InvalidDevice"), cupy.cuda.Device(2):
        pass


def test_a_gpu_that_is_lost(cupy: Any, machine: Machine) -> None:
    source = pinned(np.ones(8, np.uint8))
    with cupy.cuda.Device(1):
        other = Copied(cupy, source)
    copied, event = Copied(cupy, source), cupy.cuda.Event()
    copied.stream.record(event)
    machine.lose(0)
    for use in (copied.stream.synchronize, event.synchronize, lambda: event.done, lambda: cupy.empty(1), pinned):
        with error(cupy, "DevicesUnavailable") as caught:
            use(1) if use is pinned else use()
        assert caught.value.status == 46
    machine.progress()
    assert (copied.back == POISON).all()
    with cupy.cuda.Device(1):
        other.stream.synchronize()
    assert (other.back == 1).all()


def test_a_gpu_that_is_lost_later(cupy: Any, machine: Machine) -> None:
    stream, ran = cupy.cuda.Stream(non_blocking=True), []
    machine.lose(0, after=2, status=700)
    for number in range(4):
        stream.enqueue(lambda number=number: ran.append(number), launch=True)
    with error(cupy, "IllegalAddress"):
        stream.synchronize()
    with error(cupy, "IllegalAddress"):
        stream.synchronize()
    assert ran == [0, 1]


# Graphs


def test_a_graph_keeps_its_addresses(cupy: Any, machine: Machine) -> None:
    stream, array = cupy.cuda.Stream(non_blocking=True), cupy.empty(4, np.uint8)
    source, back = pinned(np.zeros(4, np.uint8)), pinned(np.zeros(4, np.uint8))
    stream.begin_capture()
    array.set(source, stream=stream)
    array.get(stream=stream, out=back, blocking=False)
    graph = stream.end_capture()
    stream.synchronize()
    assert (back == 0).all()
    for value in (3, 4):
        source[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert (back == value).all()
    assert (machine.captures, machine.graph_launches) == (1, 2)


def test_what_a_capture_forbids(cupy: Any) -> None:
    stream, array, event = cupy.cuda.Stream(non_blocking=True), cupy.empty(4, np.uint8), cupy.cuda.Event()
    event.record(cupy.cuda.Stream(non_blocking=True))
    for use, name in (
        (lambda: cupy.empty(4, np.uint8), "CaptureUnsupported"),
        (lambda: pinned(1), "CaptureUnsupported"),
        (lambda: array.get(stream=stream), "CaptureUnsupported"),
        (stream.synchronize, "CaptureUnsupported"),
        (event.synchronize, "CaptureUnsupported"),
        (lambda: stream.wait_event(event), "CaptureIsolation"),
    ):
        stream.begin_capture()
        with error(cupy, name):
            use()
        with error(cupy, "CaptureInvalidated"):
            stream.end_capture()


def test_a_gpu_that_is_lost_during_a_capture(cupy: Any, machine: Machine) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    machine.lose(0)
    with cupy.cuda.Device(1):
        Copied(cupy, np.ones(8, np.uint8))  # on the other, work goes on
    with error(cupy, "DevicesUnavailable"):
        stream.end_capture()


# Kernels


def test_the_text_of_a_kernel_runs(cupy: Any, machine: Machine) -> None:
    kernel = cupy.ElementwiseKernel(
        "raw int64 table, uint8 x, int64 factor",
        "float32 y",
        "y = twice(x) * factor + table[i % 2]",
        "name",
        preamble="__device__ static __forceinline__ long long twice(long long x) { return 2 * x; }",
    )
    with cupy.cuda.Stream(non_blocking=True) as stream:
        table, x, y = cupy.empty(2, np.int64), cupy.empty((2, 3), np.uint8), cupy.empty((2, 3), np.float32)
        table.set(np.array([100, 200]), stream=stream)
        x.set(np.arange(6, dtype=np.uint8).reshape(2, 3), stream=stream)
        assert kernel(table, x, 5, y) is y
        found = y.get(stream=stream)
    np.testing.assert_array_equal(found, [[100, 210, 120], [230, 140, 250]])
    assert machine.kernel_launches == 1


def test_a_kernel_follows_pointers(cupy: Any) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = ((const unsigned char*)table[i])[1]")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        images, table, y = [cupy.empty(3, np.uint8) for _ in range(2)], cupy.empty(2, np.int64), cupy.empty(2, np.uint8)
        for value, image in enumerate(images):
            image.set(np.full(3, value + 7, np.uint8), stream=stream)
        table.set(np.array([image.data.ptr for image in images]), stream=stream)
        del images[1], image
        kernel(table, y)
        np.testing.assert_array_equal(y.get(stream=stream), [7, POISON])


def test_tables_that_were_never_written_or_point_elsewhere(cupy: Any, machine: Machine) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = *(const unsigned char*)table[i]")
    with cupy.cuda.Device(1):
        elsewhere = cupy.empty(4, np.uint8)
    for pointer in (None, elsewhere.data.ptr, np.zeros(4, np.uint8).ctypes.data):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            table, y = cupy.empty(1, np.int64), cupy.empty(1, np.uint8)
            if pointer:
                table.set(np.array([pointer]), stream=stream)
            kernel(table, y)
            with error(cupy, "IllegalAddress"):
                stream.synchronize()
        machine.gpus[0].failed = None


def test_arguments_that_do_not_fit_a_kernel(cupy: Any) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = table[0]")
    with cupy.cuda.Stream(non_blocking=True):
        table, y = cupy.empty(1, np.int64), cupy.empty(1, np.uint8)
        with pytest.raises(TypeError, match="Type is mismatched"):
            kernel(y, y)
        with pytest.raises(TypeError, match=r"cupy\.ndarray"):
            kernel(np.zeros(1, np.int64), y)
        with pytest.raises(AssertionError, match="2 arguments"):
            kernel(table)
    with pytest.raises(AssertionError, match="null stream"):
        kernel(table, y)


def test_a_kernel_that_does_not_compile(cupy: Any) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = unknown")
    with cupy.cuda.Stream(non_blocking=True), pytest.raises(AssertionError, match="unknown"):
        kernel(cupy.empty(1, np.int64), cupy.empty(1, np.uint8))


# TensorRT


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> FakeTensorRT:
    return fake_tensorrt.install(monkeypatch, machine)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "double.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE), path)
    return path


class Build:
    """One build, step by step."""

    def __init__(self) -> None:
        self.trt = importlib.import_module("tensorrt")
        self.log = self.trt.Logger()
        self.builder = self.trt.Builder(self.log)
        self.network = self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.parser = self.trt.OnnxParser(self.network, self.log)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        self.profile = self.builder.create_optimization_profile()

    def plan(self, path: Path, *flags: str) -> Any:
        assert self.parser.parse_from_file(str(path))
        self.profile.set_shape("x", (1, 64), (4, 64), (4, 64))
        assert self.config.add_optimization_profile(self.profile) == 0
        for flag in flags:
            self.config.set_flag(getattr(self.trt.BuilderFlag, flag))
        return self.builder.build_serialized_network(self.network, self.config)


def load(plan: Any, module: str = "tensorrt", *, host_code: bool = False) -> tuple[Any, list[str]]:
    """The engine or None, and what was logged."""
    trt = importlib.import_module(module)
    log = trt.Logger()
    runtime = trt.Runtime(log)
    runtime.engine_host_code_allowed = host_code
    return runtime.deserialize_cuda_engine(plan), log.messages


class Run:
    """An execution of DOUBLE on its own stream and buffers, for at most `rows`."""

    def __init__(self, cupy: Any, plan: Any, rows: int = 4) -> None:
        self.trt = importlib.import_module("tensorrt")
        self.engine, _ = load(plan)
        self.context = self.engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.x, self.y = cupy.empty((rows, 64), np.uint8), cupy.empty((rows, 64), np.float32)
        assert self.shape(rows)
        size = self.context.update_device_memory_size_for_shapes()
        self.scratch = cupy.cuda.alloc(size)
        self.context.set_device_memory(self.scratch.ptr, size)
        assert self.context.set_tensor_address("x", self.x.data.ptr)
        assert self.context.set_tensor_address("y", self.y.data.ptr)

    def shape(self, rows: int) -> bool:
        return bool(self.context.set_input_shape("x", (rows, 64)))

    def __call__(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream.ptr))


@pytest.fixture
def run(cupy: Any, fake: FakeTensorRT, graph: Path) -> Run:  # noqa: ARG001
    return Run(cupy, Build().plan(graph))


def views(rows: int) -> NDArray[np.uint8]:
    return np.arange(rows * 64, dtype=np.uint8).reshape(rows, 64)


def test_a_plan_computes_what_its_graph_says(run: Run, fake: FakeTensorRT) -> None:
    run.x.set(views(4), stream=run.stream)
    assert run()
    np.testing.assert_array_equal(run.y.get(stream=run.stream), 2.0 * views(4))
    assert fake.executions == [(0, (4, 64), False)]


def test_what_an_engine_says_of_itself(run: Run) -> None:
    trt, engine = run.trt, run.engine
    assert [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)] == ["x", "y"]
    assert engine.get_tensor_mode("x") == trt.TensorIOMode.INPUT
    assert engine.get_tensor_mode("y") == trt.TensorIOMode.OUTPUT
    assert trt.nptype(engine.get_tensor_dtype("x")) is np.uint8
    assert engine.get_tensor_dtype("y") == trt.DataType.FLOAT
    assert engine.get_tensor_shape("y") == (-1, 64)
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("x", 0)] == [(1, 64), (4, 64), (4, 64)]
    assert run.shape(3)
    assert run.context.infer_shapes() == []
    assert tuple(run.context.get_tensor_shape("y")) == (3, 64)


def test_an_execution_is_asynchronous(run: Run) -> None:
    assert run()
    run.x.set(pinned(views(4)), stream=run.stream)  # too late
    (found,) = {float(value) for value in np.unique(run.y.get(stream=run.stream))}
    assert found == 2 * POISON


def test_shapes_outside_the_profile(run: Run) -> None:
    assert not run.shape(5)
    assert not run.shape(0)
    assert not run.context.set_input_shape("x", (1, 63))


def test_less_memory_for_fewer_views(run: Run) -> None:
    most = run.context.update_device_memory_size_for_shapes()
    run.shape(1)
    less = run.context.update_device_memory_size_for_shapes()
    assert less < most == run.engine.device_memory_size_v2
    run.context.set_device_memory(run.scratch.ptr, less)
    assert run()
    run.shape(2)
    assert not run()


def test_what_was_not_set(cupy: Any, run: Run) -> None:
    context = run.engine.create_execution_context(run.trt.ExecutionContextAllocationStrategy.STATIC)
    assert context.infer_shapes() == ["x"]
    assert not context.execute_async_v3(run.stream.ptr)
    context.set_input_shape("x", (1, 64))
    assert not context.execute_async_v3(run.stream.ptr)
    with pytest.raises(AssertionError, match="not 256-byte aligned"):
        context.set_tensor_address("x", cupy.empty((4, 64), np.uint8)[1].data.ptr)


def test_where_an_execution_may_not_run(cupy: Any, run: Run, graph: Path) -> None:
    with pytest.raises(AssertionError, match="null stream"):
        run.context.execute_async_v3(0)
    assert run()
    other = cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(AssertionError, match="one execution context runs on two streams"):
        run.context.execute_async_v3(other.ptr)
    with cupy.cuda.Device(1):
        elsewhere = cupy.cuda.Stream(non_blocking=True)
        with pytest.raises(AssertionError, match=r"two streams|another GPU"):
            run.context.execute_async_v3(elsewhere.ptr)
    second = Run(cupy, Build().plan(graph))
    second.context.set_device_memory(run.scratch.ptr, 1 << 12)
    with pytest.raises(AssertionError, match="two contexts compute in the same memory"):
        second()


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


def test_the_first_run_of_a_shape_is_not_captured(cupy: Any, run: Run) -> None:
    run.stream.begin_capture()
    assert not run()
    with error(cupy, "CaptureInvalidated"):
        run.stream.end_capture()


def test_a_captured_execution(run: Run, fake: FakeTensorRT) -> None:
    assert run()
    run.stream.begin_capture()
    assert run()
    graph = run.stream.end_capture()
    run.shape(1)  # which is not the graph's business any more
    for shift in (1, 2):
        run.x.set(views(4) + np.uint8(shift), stream=run.stream)
        graph.launch(run.stream)
        np.testing.assert_array_equal(run.y.get(stream=run.stream), 2.0 * (views(4) + np.uint8(shift)))
    assert fake.executions == [(0, (4, 64), False), (0, (4, 64), True)]


def test_no_memory_for_a_context(run: Run, fake: FakeTensorRT, machine: Machine) -> None:
    machine.fail_allocation()
    assert run.engine.create_execution_context() is None
    fake.contexts_left = 1
    strategy = run.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    assert run.engine.create_execution_context(strategy) is not None
    assert run.engine.create_execution_context(strategy) is None


def test_a_lost_gpu_in_tensorrt(cupy: Any, run: Run, machine: Machine) -> None:
    machine.lose(0, after=1)
    assert run() and run()
    with error(cupy, "DevicesUnavailable"):
        run.stream.synchronize()
    assert not run()
    assert run.engine.create_execution_context() is None
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        run.trt.Runtime(run.trt.Logger())


@pytest.mark.usefixtures("fake")
def test_plans_are_of_one_release_and_one_gpu(
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    graph: Path,
) -> None:
    plan, whole, lean = (
        Build().plan(graph, *flags)
        for flags in ((), ("VERSION_COMPATIBLE",), ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"))
    )
    assert load(plan)[0] is not None
    assert "engineHostCodeAllowed" in load(whole)[1][0].replace("setE", "e")
    assert load(b"nonsense")[0] is None
    fake_tensorrt.install(monkeypatch, machine, lean=True)
    assert load(lean, "tensorrt_lean")[0] is not None
    assert "version compatible plans only" in load(plan, "tensorrt_lean")[1][0]
    machine.gpus[0].capability = (8, 9)
    assert "expecting compute 8.9 got compute 9.0" in load(plan)[1][0]
    machine.gpus[0].capability = (9, 0)
    fake_tensorrt.install(monkeypatch, machine, "11.5.0.1")
    for refused in (plan, lean):
        assert "expecting library version 11.4.0.106 got 11.5.0.1" in load(refused)[1][0]
    assert load(whole, host_code=True)[0] is not None


def test_the_lean_runtime_builds_nothing(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    fake_tensorrt.install(monkeypatch, machine, lean=True)
    lean = importlib.import_module("tensorrt_lean")
    assert not hasattr(lean, "Builder")
    assert not hasattr(lean, "OnnxParser")


def test_what_a_build_is_told(fake: FakeTensorRT, graph: Path, machine: Machine) -> None:
    build = Build()
    build.config.clear_flag(build.trt.BuilderFlag.TF32)
    build.config.set_memory_pool_limit(build.trt.MemoryPoolType.WORKSPACE, 1 << 10)
    build.plan(graph, "VERSION_COMPATIBLE")
    (header,) = fake.builds
    assert header.strongly_typed
    assert header.flags == ["VERSION_COMPATIBLE"]
    assert header.workspace == 1 << 10
    assert header.profiles == [{"x": [[1, 64], [4, 64], [4, 64]]}]
    assert header.capability == machine.gpus[0].capability
    Build().plan(graph)
    assert fake.builds[1].flags == ["TF32"]


@pytest.mark.usefixtures("fake")
def test_what_11_dropped(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    assert not hasattr(importlib.import_module("tensorrt").BuilderFlag, "FP16")
    with pytest.raises(AttributeError):
        Build().config.max_workspace_size = 1
    old = fake_tensorrt.install(monkeypatch, machine, "10.12.0.36")
    trt = importlib.import_module("tensorrt")
    assert trt.BuilderFlag.FP16 in trt.BuilderFlag
    builder = trt.Builder(trt.Logger())
    assert not builder.create_network(0).strongly_typed
    assert builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)).strongly_typed
    assert old.major == 10


def test_builds_that_fail(fake: FakeTensorRT, graph: Path) -> None:
    build = Build()
    assert build.parser.parse_from_file(str(graph))
    assert build.builder.build_serialized_network(build.network, build.config) is None
    assert "no optimization profile has been defined" in build.log.messages[0]
    fake.build_fails = "Error Code 10: Internal Error (Could not find any implementation for node cast.)"
    build = Build()
    assert build.plan(graph) is None
    assert "Could not find any implementation for node cast" in build.log.messages[0]
    with pytest.raises(RuntimeError, match="inconsistent"):
        build.profile.set_shape("x", (2, 64), (1, 64), (4, 64))


@pytest.mark.usefixtures("fake")
def test_uint8_feeds_nothing_but_a_cast(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, [64, "n"])
    graph = helper.make_graph([helper.make_node("Transpose", ["x"], ["y"], "turn")], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "turn.onnx")
    parser = Build().parser
    assert not parser.parse_from_file(str(tmp_path / "turn.onnx"))
    assert parser.num_errors == 1
    assert (parser.get_error(0).desc(), parser.get_error(0).node_name()) == ("Transpose does not take UINT8", "turn")
    assert not parser.parse_from_file(str(tmp_path / "missing.onnx"))
    with pytest.raises(TypeError):
        parser.parse_from_file(tmp_path / "turn.onnx")


@pytest.mark.usefixtures("fake")
def test_a_plan_is_bytes_without_a_length(graph: Path) -> None:
    plan = Build().plan(graph)
    assert plan.nbytes == len(bytes(plan))
    with pytest.raises(TypeError):
        len(plan)


def test_what_the_inspector_reports(fake: FakeTensorRT, graph: Path) -> None:
    def layers(**options: Any) -> Any:
        build = Build()
        for name, value in options.items():
            setattr(build.config, name, value)
        engine, _ = load(build.plan(graph))
        inspector = engine.create_engine_inspector()
        return json.loads(inspector.get_engine_information(build.trt.LayerInformationFormat.JSON))["Layers"]

    assert [layer["Metadata"] for layer in layers()] == ["[ONNX Layer: cast]", "[ONNX Layer: twice]"]
    names = importlib.import_module("tensorrt").ProfilingVerbosity.LAYER_NAMES_ONLY
    assert layers(profiling_verbosity=names) == ["Cast_myl0_0", "Mul_myl0_1"]
    fake.layers = [{"Name": "mine"}]
    assert layers() == [{"Name": "mine"}]


@pytest.mark.usefixtures("fake")
def test_timing_caches(graph: Path, machine: Machine) -> None:
    build = Build()
    cache = build.config.create_timing_cache(b"")
    assert build.config.set_timing_cache(cache, False)
    before = bytes(cache.serialize())
    build.plan(graph)
    assert bytes(cache.serialize()) != before
    assert build.config.create_timing_cache(b"nonsense") is None
    machine.gpus[0].name = "NVIDIA L4"
    stale = build.config.create_timing_cache(before)
    assert not build.config.set_timing_cache(stale, False)
    assert build.config.set_timing_cache(stale, True)


@pytest.mark.usefixtures("fake")
def test_loggers_that_were_not_initialised() -> None:
    trt = importlib.import_module("tensorrt")

    class Mine(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.messages: list[str] = []

    for logger in (Mine(), None):
        with pytest.raises(TypeError):
            trt.Builder(logger)
