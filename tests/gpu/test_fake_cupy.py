"""The fake of CuPy catches the mistakes that it is there to catch: waits, lifetimes, devices, captures."""

import ctypes
import gc
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from tests.gpu.fakes.copied import Copied, error, pinned
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_memory import POISON

ONES = np.ones(4, np.uint8)


def stream_of(cupy: Any) -> Any:
    return cupy.cuda.Stream(non_blocking=True)


# Waits


def test_nothing_has_happened_before_somebody_waits(cupy: Any) -> None:
    copied = Copied(cupy, source := pinned(np.arange(8, dtype=np.uint8)))
    assert copied.array.data.ptr % 512 == 0
    assert (copied.back == POISON).all()
    copied.stream.synchronize()
    np.testing.assert_array_equal(copied.back, source)


def test_sources_that_change_or_go_before_they_were_copied(cupy: Any, machine: Machine) -> None:
    """Pinned memory is read when the GPU gets there, pageable memory at once."""
    changed, pageable = pinned(np.zeros(4, np.uint8)), np.zeros(4, np.uint8)
    copies = [Copied(cupy, changed), Copied(cupy, pinned(ONES)), Copied(cupy, pageable)]  # nobody holds the second
    changed[:] = pageable[:] = 9
    gc.collect()
    for copied in copies:
        copied.stream.synchronize()
    assert [copied.back[0] for copied in copies] == [9, POISON, 0]
    assert machine.pageable_copies == 1
    with pytest.raises(AssertionError, match="not pinned"):
        copies[0].array.get(stream=copies[0].stream, out=pageable, blocking=False)


@pytest.mark.parametrize(("waits", "value"), [(False, POISON), (True, 1)])
def test_another_stream_must_wait(cupy: Any, waits: bool, value: int) -> None:
    first, second = stream_of(cupy), stream_of(cupy)
    array, back, source = cupy.empty(4, np.uint8), pinned(np.zeros(4, np.uint8)), pinned(ONES)
    array.set(source, stream=first)
    if waits:
        second.wait_event(first.record())
    array.get(stream=second, out=back, blocking=False)
    second.synchronize()
    assert (back == value).all()


def test_an_event_stands_for_where_it_was_recorded(cupy: Any, machine: Machine) -> None:
    stream, event = stream_of(cupy), cupy.cuda.Event(disable_timing=True)
    assert event.done  # never recorded
    array, sources = cupy.empty(4, np.uint8), [pinned(np.full(4, value, np.uint8)) for value in (1, 2)]
    backs = [pinned(np.zeros(4, np.uint8)) for _ in sources]
    for source, back in zip(sources, backs, strict=True):
        array.set(source, stream=stream)
        array.get(stream=stream, out=back, blocking=False)
        if source is sources[0]:
            stream.record(event)
    machine.progress(1)
    assert not event.done
    event.synchronize()
    assert event.done
    assert [back[0] for back in backs] == [1, 0]


# Memory


@pytest.mark.parametrize(("reader", "value"), [("own", 1), ("other", POISON)])
def test_memory_is_freed_in_the_order_of_its_stream(cupy: Any, reader: str, value: int) -> None:
    """Of that where it was allocated; any other finds in it what somebody else may have put there."""
    streams = {name: stream_of(cupy) for name in ("own", "other")}
    own, source, back = streams["own"], pinned(ONES), pinned(np.zeros(4, np.uint8))
    with own:
        array = cupy.empty(4, np.uint8)
    array.set(source, stream=own)
    streams["other"].wait_event(own.record())
    array.get(stream=streams[reader], out=back, blocking=False)
    del array
    streams[reader].synchronize()
    assert (back == value).all()


def test_writing_to_what_was_freed(cupy: Any) -> None:
    stream = stream_of(cupy)
    cupy.empty(4, np.uint8).set(ONES, stream=stream)  # allocated on no stream
    with pytest.raises(AssertionError, match="freed"):
        stream.synchronize()


def test_a_graph_that_outlives_its_arrays(cupy: Any) -> None:
    source = pinned(ONES)
    with stream_of(cupy) as stream:
        array = cupy.empty(4, np.uint8)
        stream.begin_capture()
        array.set(source, stream=stream)
        graph = stream.end_capture()
        del array
        graph.launch()
        with pytest.raises(AssertionError, match="freed"):
            stream.synchronize()


def test_writing_beyond_the_end(cupy: Any) -> None:
    stream, array = stream_of(cupy), cupy.empty(4, np.uint8)
    stream.enqueue(lambda: ctypes.memset(array.data.ptr, 0, 5))
    with pytest.raises(AssertionError, match="written beyond 4 bytes of GPU 0"):
        stream.synchronize()


# Devices


def test_only_the_gpu_that_was_chosen_is_touched(cupy: Any, machine: Machine) -> None:
    with cupy.cuda.Device(1):
        copied = Copied(cupy, pinned(ONES))
        copied.stream.synchronize()
        assert machine.touched == {1}
        thread = threading.Thread(target=pinned, args=(ONES,))  # whose current GPU is 0
        thread.start()
        thread.join()
        assert machine.touched == {0, 1}


def test_what_belongs_to_another_gpu(cupy: Any) -> None:
    with cupy.cuda.Device(1):
        stream, array, event = stream_of(cupy), cupy.empty(4, np.uint8), cupy.cuda.Event()
    mine = stream_of(cupy)
    for use in (
        lambda: array.set(ONES, stream=mine),
        lambda: array.set(ONES, stream=stream),
        lambda: cupy.empty(4, np.uint8).set(ONES, stream=stream),
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


def test_a_gpu_that_is_lost(cupy: Any, machine: Machine) -> None:
    """Every call fails from then on, and what was queued never happens; another GPU goes on."""
    source = pinned(ONES)
    with cupy.cuda.Device(1):
        other = Copied(cupy, source)
    copied, event = Copied(cupy, source), cupy.cuda.Event()
    copied.stream.record(event)
    machine.lose(0)
    assert not event.done
    for use in (copied.stream.synchronize, event.synchronize, lambda: cupy.empty(1)):
        with error(cupy, "DevicesUnavailable") as caught:
            use()
        assert caught.value.status == 46
    machine.progress()
    assert (copied.back == POISON).all()
    cupy.cuda.runtime.setDevice(1)
    other.stream.synchronize()
    assert (other.back == 1).all()


def test_an_error_of_a_kernel_stays(cupy: Any, machine: Machine) -> None:
    stream, ran = stream_of(cupy), []
    machine.lose(0, after=2, status=700)
    for number in range(4):
        stream.enqueue(lambda number=number: ran.append(number), launch=True)
    for _ in range(2):
        with error(cupy, "IllegalAddress"):
            stream.synchronize()
    assert ran == [0, 1]


# Captures


def test_a_graph_keeps_its_addresses(cupy: Any, machine: Machine) -> None:
    stream, array = stream_of(cupy), cupy.empty(4, np.uint8)
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


def started(cupy: Any, mode: int | None) -> Any:
    """A stream that captures."""
    stream = stream_of(cupy)
    stream.begin_capture(mode)
    return stream


def unsafe(cupy: Any) -> list[Callable[[], object]]:
    """Calls that CUDA forbids while somebody captures, on another stream than theirs."""
    array, event, idle = cupy.empty(4, np.uint8), cupy.cuda.Event(), stream_of(cupy)
    event.record(idle)
    kernel = cupy.ElementwiseKernel("", "uint8 values", "values = 1")
    return [
        lambda: cupy.empty(4, np.uint8),
        lambda: pinned(1),
        event.synchronize,
        idle.synchronize,
        lambda: array.get(stream=idle),
        cupy.get_default_memory_pool().free_all_blocks,
        lambda: started_kernel(kernel, array, idle),
    ]


def started_kernel(kernel: Any, array: Any, stream: Any) -> None:
    with stream:
        kernel(array)


@pytest.mark.parametrize("mode", ["Global", "ThreadLocal", "Relaxed", None])
@pytest.mark.parametrize("other", [False, True])
def test_what_a_capture_forbids(cupy: Any, mode: str | None, other: bool) -> None:
    """In the global mode to every thread, in the thread's own mode to that thread, in the relaxed one to none."""
    code = None if mode is None else getattr(cupy.cuda.runtime, f"streamCaptureMode{mode}")
    forbidden = mode == "Global" or (mode == "ThreadLocal" and not other)
    for use in unsafe(cupy):
        stream = started(cupy, code)
        assert refused(use, in_a_thread=other) == forbidden
        with error(cupy, "CaptureInvalidated") if forbidden else nullcontext():
            stream.end_capture()


def refused(use: Callable[[], object], *, in_a_thread: bool) -> bool:
    """Whether it fails as what a capture forbids."""
    found: list[object] = []

    def called() -> None:
        try:
            use()
        except RuntimeError as error:
            found.append(getattr(error, "status", error))

    thread = threading.Thread(target=called)
    (thread.start if in_a_thread else called)()
    if in_a_thread:
        thread.join()
    assert found in ([], [900])
    return bool(found)


def test_a_question_that_a_capture_forbids(cupy: Any) -> None:
    """CuPy raises nothing, and the capture is spoilt all the same."""
    event = cupy.cuda.Event()
    stream = started(cupy, cupy.cuda.runtime.streamCaptureModeGlobal)
    assert not event.done
    with error(cupy, "CaptureInvalidated"):
        stream.end_capture()
    assert event.done


def test_what_no_capture_allows(cupy: Any, machine: Machine) -> None:
    event = cupy.cuda.Event()
    event.record(stream_of(cupy))
    stream = started(cupy, None)
    for use, name in (
        (stream.synchronize, "CaptureUnsupported"),
        (cupy.cuda.Device(0).synchronize, "CaptureUnsupported"),
        (lambda: stream.wait_event(event), "CaptureIsolation"),
    ):
        with error(cupy, name):
            use()
        with error(cupy, "CaptureInvalidated"):
            stream.end_capture()
        stream.begin_capture()
    with error(cupy, "IllegalState"):
        stream.begin_capture()
    machine.lose(0)
    cupy.cuda.runtime.setDevice(1)
    Copied(cupy, ONES)  # on the other, work goes on
    machine.local.device = 0
    with error(cupy, "DevicesUnavailable"):
        stream.end_capture()


def test_kernels_fail_in_the_driver(cupy: Any, machine: Machine) -> None:
    kernel, array = cupy.ElementwiseKernel("", "uint8 values", "values = 1"), cupy.empty(4, np.uint8)
    with stream_of(cupy):
        machine.lose(0)
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="busy or unavailable") as caught:
            kernel(array)
    assert caught.value.status == 46
    assert not isinstance(caught.value, cupy.cuda.runtime.CUDARuntimeError)


def test_devices_that_were_lost_stay_on_cupys_stack(cupy: Any, machine: Machine) -> None:
    """As in CuPy: who enters one that fails is taken to the wrong one later."""
    machine.lose(0)
    with error(cupy, "DevicesUnavailable"), cupy.cuda.Device(1), cupy.cuda.Device(0):
        pass
    assert machine.current == 1
