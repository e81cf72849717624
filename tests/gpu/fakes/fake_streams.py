"""CUDA streams, events and graphs without a GPU, as strict as CUDA and more asynchronous.

Nothing that is queued on a stream runs before somebody waits for it, so a wait that is missing is seen as poison.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Self

from tests.gpu.fakes.fake_machine import RELAXED, Capture, CUDARuntimeError, Machine

Operation = Callable[[], None]


class Marker:
    """The place in a stream where an event was recorded."""

    def __init__(self, stream: "Stream") -> None:
        self.stream, self.done = stream, False

    def arrive(self) -> None:
        self.done = True

    def reach(self) -> None:
        self.stream.run(until=self)


class Stream:
    """cupy.cuda.Stream, and `enqueue`, through which other fakes and tests queue what they do."""

    machine: ClassVar[Machine]

    def __init__(self, *, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.device_id = self.machine.use()
        self.queue: deque[Operation] = deque()
        self.recorded: list[Operation] | None = None
        self.invalid = False
        with self.machine.lock:
            self.ptr = 0x5000 + 16 * len(self.machine.streams)
            self.machine.streams[self.ptr] = self

    def enqueue(self, operation: Operation, *, launch: bool = False) -> None:
        """Queues what runs when somebody waits for it; during a capture, records it instead.

        :param launch: it is a kernel or a graph, which `Machine.lose` counts
        """
        with self.machine.lock:
            self.machine.use(self.device_id)
            whole = self._launch(operation) if launch else operation
            if self.recorded is not None:
                self.recorded.append(operation)
                return
            self.queue.append(whole)

    def _launch(self, operation: Operation) -> Operation:
        def run() -> None:
            self.machine.count_launch(self.device_id)
            operation()

        return run

    def run(self, until: Marker | None = None, count: int | None = None) -> None:
        """What is queued: all, what lies before a marker, or that many operations."""
        with self.machine.lock:
            self.machine.working(self.device_id)
            while self.queue and not (until and until.done) and count != 0:
                self._run(self.queue.popleft())
                count = count and count - 1

    def _run(self, operation: Operation) -> None:
        try:
            operation()
        except CUDARuntimeError as error:
            self.machine.gpus[self.device_id].failed = error.status  # CUDA's errors stay
            raise
        self.machine.check()

    def synchronize(self) -> None:
        self.machine.interrupt()
        self.machine.use(self.device_id)
        if self.recorded is not None:  # of a capturing stream, in any mode
            self.invalid = True
            raise CUDARuntimeError(900)
        self.run()

    def record(self, event: "Event | None" = None) -> "Event":
        if event is None:
            event = of_machine(self.machine, Event)()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        self.machine.use(self.device_id)
        assert event.device == self.device_id, "one GPU waits for another"
        if self.recorded is not None:
            self.invalid = True
            raise CUDARuntimeError(905)
        if event.marker is not None:
            self.enqueue(event.marker.reach)

    def begin_capture(self, mode: int | None = None) -> None:
        """:param mode: CuPy's own is relaxed"""
        self.machine.use(self.device_id)
        if self.recorded is not None:
            raise CUDARuntimeError(401)
        mode = RELAXED if mode is None else mode
        with self.machine.lock:
            self.recorded, self.invalid = [], False
            self.machine.open_captures.append(Capture(self, mode, threading.get_ident()))

    def end_capture(self) -> "Graph":
        recorded, self.recorded = self.recorded, None
        with self.machine.lock:
            ended = [capture for capture in self.machine.open_captures if capture.stream is self]
            self.machine.open_captures = [capture for capture in self.machine.open_captures if capture not in ended]
        self.machine.use(self.device_id)
        if recorded is None:
            raise CUDARuntimeError(401)
        if ended[0].mode != RELAXED and ended[0].thread != threading.get_ident():
            raise CUDARuntimeError(908)
        if self.invalid:
            raise CUDARuntimeError(901)
        self.machine.captures += 1
        return Graph(self, recorded)

    def __enter__(self) -> Self:
        self.machine.use(self.device_id)
        self.machine.local.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.machine.local.streams.pop() is self


def of_machine(machine: Machine, kind: type) -> Any:
    """The class as the modules have it, whose objects live on that machine."""
    return type(kind.__name__, (kind,), {"machine": machine})


class Event:
    """cupy.cuda.Event"""

    machine: ClassVar[Machine]

    def __init__(self, *, block: bool = False, disable_timing: bool = False) -> None:
        self.block, self.disable_timing = block, disable_timing
        self.device = self.machine.use()
        self.marker: Marker | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current_stream(self.machine)
        assert stream.recorded is None, "these captures record no events"
        if stream.device_id != self.device:
            raise CUDARuntimeError(400)
        self.marker = Marker(stream)
        stream.enqueue(self.marker.arrive)

    def synchronize(self) -> None:
        self.machine.interrupt()
        self.machine.working(self.device)
        if self.marker is not None:
            self.marker.reach()

    @property
    def done(self) -> bool:
        """CuPy makes no exception of what cudaEventQuery returns: whatever is not success is not done."""
        try:
            self.machine.interrupt()
            self.machine.working(self.device)
        except CUDARuntimeError:
            return False
        return self.marker is None or self.marker.done


class Graph:
    """cupy.cuda.Graph: what a stream recorded, addresses and all."""

    def __init__(self, stream: Stream, operations: list[Operation]) -> None:
        self.machine, self.device, self.operations = stream.machine, stream.device_id, operations

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or current_stream(self.machine)
        assert stream.device_id == self.device, "a graph is launched on another GPU"
        self.machine.graph_launches += 1
        stream.enqueue(self._run, launch=True)

    def _run(self) -> None:
        for operation in self.operations:
            operation()


def current_stream(machine: Machine) -> Stream:
    """Of the current GPU, in this thread."""
    device = machine.use()
    streams = [stream for stream in machine.local.streams if stream.device_id == device]
    assert streams, "work on the null stream"
    return streams[-1]
