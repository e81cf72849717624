"""Runs of a TensorRT engine on one stream, as CUDA graphs where shape and addresses stay the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spai_runtime.engines import Contract
from spai_runtime.engines.cuda.gpu import Gpu, import_cupy
from spai_runtime.engines.cuda.program import Shape
from spai_runtime.errors import EngineError

_CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCapture…


@dataclass(frozen=True)
class Loaded:
    """A deserialised engine.

    :param log: has its last error
    """

    trt: Any
    engine: Any
    contract: Contract
    gpu: Gpu
    log: Any

    def error(self) -> EngineError:
        """What to raise after TensorRT refused something."""
        if self.log.out_of_memory:
            return self.gpu.full(self.log.last)
        return EngineError(f"TensorRT failed on {self.gpu.device}: {self.log.last}")


class _Recording(NamedTuple):
    """A CUDA graph, and what it runs with: its execution context must not take another shape."""

    graph: Any
    context: Any
    memory: Any


class TensorRTExecution:
    """See `Execution`. All its contexts compute in one block of memory, which the order of the stream allows."""

    def __init__(self, loaded: Loaded, stream: Any) -> None:
        self.stream = stream
        self._loaded = loaded
        self._recordings: dict[object, _Recording] = {}
        self._memory: Any = None
        self._nbytes = 0
        self._context: Any = None  # for shapes that nothing was recorded for

    def prepare(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`. The first run of a shape does what must not be recorded."""
        context = self._new_context()
        self._bind(context, shape, source, targets)
        self._execute(context)
        self.stream.synchronize()
        graph = self._record(context)
        if graph is not None:
            self._recordings[shape, source, *targets] = _Recording(graph, context, self._memory)

    def enqueue(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`."""
        recording = self._recordings.get((shape, source, *targets))
        if recording:
            recording.graph.launch(self.stream)
            return
        if self._context is None:
            self._context = self._new_context()
        self._bind(self._context, shape, source, targets)
        self._execute(self._context)

    def _new_context(self) -> Any:
        """Without memory of its own: that is a matter of the shape."""
        trt, engine, log = self._loaded.trt, self._loaded.engine, self._loaded.log
        log.clear()
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._loaded.gpu.full(log.last)
        return context

    def _bind(self, context: Any, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Shape first: the memory that a run takes follows from it."""
        contract, log = self._loaded.contract, self._loaded.log
        log.clear()
        if not context.set_input_shape(contract.input.name, shape) or context.infer_shapes():
            raise self._loaded.error()
        self._reserve(context.update_device_memory_size_for_shapes())
        context.set_device_memory(self._memory.ptr, self._nbytes)
        names = [contract.input.name, *(output.name for output in contract.outputs)]
        for name, pointer in zip(names, (source, *targets), strict=True):
            context.set_tensor_address(name, pointer)

    def _reserve(self, nbytes: int) -> None:
        """What is replaced may still be computed in: it goes back to its stream alone, behind that."""
        if self._memory is None or nbytes > self._nbytes:
            with self.stream:
                self._memory, self._nbytes = import_cupy().cuda.alloc(max(nbytes, 1)), max(nbytes, 1)

    def _execute(self, context: Any) -> None:
        self._loaded.log.clear()
        if not context.execute_async_v3(self.stream.ptr):
            self.stream.synchronize()  # raises what CUDA has to say, if that is why
            raise self._loaded.error()

    def _record(self, context: Any) -> Any:
        """A CUDA graph of a run, or None where TensorRT has a layer that cannot be recorded."""
        failed = import_cupy().cuda.runtime.CUDARuntimeError
        try:
            self.stream.begin_capture()
            recorded = context.execute_async_v3(self.stream.ptr)
            graph = self.stream.end_capture()
        except failed as error:
            if error.status not in _CAPTURE_ERRORS:
                raise
            return None
        return graph if recorded else None
