"""A plan that TensorRT has loaded, and its runs: as CUDA graphs if shape and addresses stay the same."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from spai_runtime.engines.base import Contract, Tensor
from spai_runtime.engines.cuda.gpu import CAPTURE_ERRORS, Gpu, import_cupy
from spai_runtime.engines.cuda.program import Shape
from spai_runtime.engines.cuda.recording import RECORDINGS
from spai_runtime.engines.tensorrt_log import log_of
from spai_runtime.errors import EngineError


class TensorRTProgram:
    """A plan on the current GPU; see `Program`.

    :param remedy: what the user can do if TensorRT refuses the plan
    :param host_code: whether the plan may run the code for the host that it contains
    :ivar log: the logger that has TensorRT's last error
    """

    def __init__(
        self, trt: Any, gpu: Gpu, path: Path, contract: Contract, remedy: str, *, host_code: bool = False
    ) -> None:
        self.trt, self.gpu, self.contract, self.log = trt, gpu, contract, log_of(trt)
        self._runtime = _runtime(trt, self.log)
        self._runtime.engine_host_code_allowed = host_code
        self.engine = self._deserialise(path, remedy)
        _check_contract(path, trt, self.engine, contract)
        self.largest = _largest(path, self.engine, contract.input)
        self._config = self.engine.create_runtime_config()
        self.configure(self._config)

    def execution(self, stream: Any) -> "TensorRTExecution":
        """See `Program`."""
        return TensorRTExecution(self, stream)

    def new_context(self) -> Any:
        """A context without memory, since that depends on the shape. :raises DeviceMemoryError: there is no room"""
        self.log.clear()
        context = self.engine.create_execution_context(self._config)
        if context is None:
            raise self.gpu.full(self.log.last)
        return context

    def close(self) -> None:
        """See `Program`. An engine must go before the runtime that made it."""
        del self._config
        del self.engine
        del self._runtime

    # What another TensorRT does in its own way.

    def admit(self, path: Path, plan: bytes) -> None:
        """Check a plan before it is deserialised. :raises EngineError: it does not run here"""

    def configure(self, config: Any) -> None:
        """Set options. :param config: TensorRT's IRuntimeConfig for all execution contexts"""
        config.set_execution_context_allocation_strategy(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def first_run(self) -> AbstractContextManager[None]:
        """A block around the first run of a shape."""
        return nullcontext()

    def can_record(self, context: Any, stream: Any) -> bool:  # noqa: ARG002
        """Whether to try to record a run; if TensorRT cannot record it, that shows during the recording."""
        return True

    def error(self) -> EngineError:
        """The error to raise after TensorRT refused something."""
        if self.log.out_of_memory:
            return self.gpu.full(self.log.last)
        return EngineError(f"TensorRT failed on {self.gpu.device}: {self.log.last}")

    def _deserialise(self, path: Path, remedy: str) -> Any:
        plan = _content(path)
        self.log.clear()
        self.admit(path, plan)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine
        if self.log.out_of_memory:
            raise self.gpu.full(self.log.last)
        raise EngineError(f"TensorRT refuses {path}: {self.log.last}; {remedy}")


class TensorRTExecution:
    """See `Execution`. All its contexts share one block of memory, since the stream runs one after the other."""

    def __init__(self, program: TensorRTProgram, stream: Any) -> None:
        self.stream = stream
        self._program = program
        # CUDA graphs, and what each runs with: its execution context must not take another shape.
        self._recordings: dict[object, tuple[Any, Any, Any]] = {}
        self._memory: Any = None
        self._nbytes = 0
        self._context: Any = None  # for shapes that nothing was recorded for

    def prepare(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`. The first run of a shape does what must not be recorded."""
        with self._program.first_run():
            context = self._program.new_context()
            self._bind(context, shape, source, targets)
            self._execute(context)
            self.stream.synchronize()
        graph = self._record(context) if self._program.can_record(context, self.stream) else None
        if graph is not None:
            self._recordings[shape, source, *targets] = graph, context, self._memory

    def enqueue(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`."""
        recording = self._recordings.get((shape, source, *targets))
        if recording:
            recording[0].launch(self.stream)
            return
        if self._context is None:
            self._context = self._program.new_context()
        self._bind(self._context, shape, source, targets)
        self._execute(self._context)

    def recorded(self, shape: Shape, source: int, targets: Sequence[int]) -> bool:
        """See `Execution`."""
        return (shape, source, *targets) in self._recordings

    def close(self) -> None:
        """See `Execution`."""
        self._recordings.clear()

    def _bind(self, context: Any, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Give a context its shape, memory and addresses. The shape comes first, since the memory depends on it."""
        contract, log = self._program.contract, self._program.log
        log.clear()
        if not context.set_input_shape(contract.input.name, shape) or context.infer_shapes():
            raise self._program.error()
        self._reserve(context.update_device_memory_size_for_shapes())
        context.set_device_memory(self._memory.ptr, self._nbytes)
        names = [contract.input.name, *(output.name for output in contract.outputs)]
        for name, pointer in zip(names, (source, *targets), strict=True):
            context.set_tensor_address(name, pointer)

    def _reserve(self, nbytes: int) -> None:
        """Take more memory if needed; queued runs may use the old block, so it goes back to its stream alone."""
        if self._memory is None or nbytes > self._nbytes:
            with self.stream:
                self._memory, self._nbytes = import_cupy().cuda.alloc(max(nbytes, 1)), max(nbytes, 1)

    def _execute(self, context: Any) -> None:
        self._program.log.clear()
        if not context.execute_async_v3(self.stream.ptr):
            self.stream.synchronize()  # raises what CUDA has to say, if that is why
            raise self._program.error()

    def _record(self, context: Any) -> Any:
        """Record a run as a CUDA graph; None if TensorRT has a layer that cannot be recorded."""
        failed = import_cupy().cuda.runtime.CUDARuntimeError
        try:
            with RECORDINGS.alone():
                self.stream.begin_capture()
                recorded = context.execute_async_v3(self.stream.ptr)
                graph = self.stream.end_capture()
        except failed as error:
            if error.status not in CAPTURE_ERRORS:
                raise
            return None
        return graph if recorded else None


def _runtime(trt: Any, log: Any) -> Any:
    log.clear()
    try:
        return trt.Runtime(log)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise EngineError(f"TensorRT {trt.__version__} does not start: {log.last}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error


def _check_contract(path: Path, trt: Any, engine: Any, contract: Contract) -> None:
    """Check inputs and outputs. :raises EngineError: they are not those that detector.json implies"""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    wanted = {tensor.name: tensor for tensor in (contract.input, *contract.outputs)}
    for name, tensor in wanted.items():
        mode = trt.TensorIOMode.INPUT if tensor is contract.input else trt.TensorIOMode.OUTPUT
        if name not in names or engine.get_tensor_mode(name) != mode:
            raise _mismatch(path, f"it should have {tensor}, and has {', '.join(names)}")
        shape, dtype = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
        axes = tuple(axis if isinstance(axis, int) else -1 for axis in tensor.shape)
        if (dtype, shape) != (trt.DataType.UINT8 if tensor.dtype == "uint8" else trt.DataType.FLOAT, axes):
            raise _mismatch(path, f"it should have {tensor}, and has {name} {dtype} {shape}")
    if extra := sorted(set(names) - set(wanted)):
        raise _mismatch(path, f"it also has {', '.join(extra)}")


def _largest(path: Path, engine: Any, tensor: Tensor) -> Sequence[int | None]:
    """The largest size of each dynamic axis that the optimization profile allows; sizes start at 1."""
    least, _, largest = engine.get_tensor_profile_shape(tensor.name, 0)
    for axis, low in zip(tensor.shape, least, strict=True):
        if isinstance(axis, str) and low > 1:
            raise _mismatch(path, f"it takes {low} {axis} at least, and should take 1")
    return [int(high) if isinstance(axis, str) else None for axis, high in zip(tensor.shape, largest, strict=True)]


def _mismatch(path: Path, reason: str) -> EngineError:
    return EngineError(f"{path} does not match detector.json: {reason}")
