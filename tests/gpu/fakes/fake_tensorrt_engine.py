"""The half of the fake TensorRT that runs plans: ONNX Runtime computes on the CPU what is queued on a fake stream."""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from tests.gpu.fakes.fake_machine import Block, CUDARuntimeError, OutOfMemoryError
from tests.gpu.fakes.fake_streams import Stream
from tests.gpu.fakes.fake_tensorrt_types import (
    NUMPY,
    Dims,
    FakeTensorRT,
    Header,
    ILogger,
    IOTensor,
    LayerInformationFormat,
    Severity,
    Strategy,
    TensorIOMode,
    read_plan,
)

ALIGNMENT = 256
OUT_OF_MEMORY = "Error Code 2: OutOfMemory (Requested size was {size} bytes.)"


class Runtime:
    """trt.Runtime"""

    __slots__ = "engine_host_code_allowed", "logger"
    fake: ClassVar[FakeTensorRT]

    def __init__(self, logger: ILogger) -> None:
        self.fake.start(logger)
        self.logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        plan = bytes(memoryview(serialized_engine))
        read = read_plan(plan)
        refused = "Error Code 1: Serialization (magicTag match)" if read is None else self._refusal(read[0])
        if refused or read is None:
            self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: {refused}")
            return None
        try:
            weights = Block(self.fake.machine, self.fake.machine.use(), len(read[1]))
        except (OutOfMemoryError, CUDARuntimeError) as error:
            self.logger.log(Severity.ERROR, describe(error, len(plan)))
            return None
        return ICudaEngine(self, *read, weights)

    def _refusal(self, header: Header) -> str | None:
        """Why a plan is not for this release or this GPU."""
        capability = self.fake.machine.gpus[self.fake.machine.current].capability
        mine, its = version_numbers(self.fake.version), version_numbers(header.version)
        compatible = "VERSION_COMPATIBLE" in header.flags
        embeds = compatible and "EXCLUDE_LEAN_RUNTIME" not in header.flags
        if self.fake.lean and not compatible:
            return "Error Code 6: API Usage Error (the lean runtime takes version compatible plans only)"
        if embeds and not self.engine_host_code_allowed:
            return "Error Code 4: API Usage Error (setEngineHostCodeAllowed is required for a plan with a lean runtime)"
        if (mine < its) if embeds else (mine != its):
            versions = f"expecting library version {header.version} got {self.fake.version}"
            return f"Error Code 6: API Usage Error (The engine plan file is of another version, {versions})"
        runs = {
            "NONE": capability == header.capability,
            "SAME_COMPUTE_CAPABILITY": capability == header.capability,
            "AMPERE_PLUS": min(capability, header.capability) >= (8, 0),
        }
        if not runs[header.hardware_compatibility]:
            computes = f"expecting compute {dotted(capability)} got compute {dotted(header.capability)}"
            return f"Error Code 6: API Usage Error (The engine plan file is for an incompatible device, {computes})"
        return None


def dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def describe(error: Exception, size: int) -> str:
    """How TensorRT logs what CuPy raises."""
    if isinstance(error, CUDARuntimeError):
        return f"Error Code 1: Cuda Runtime ({str(error).partition(': ')[2]})"
    return OUT_OF_MEMORY.format(size=size)


class ICudaEngine:
    """trt.ICudaEngine"""

    def __init__(self, runtime: Runtime, header: Header, graph: bytes, weights: Block) -> None:
        self.fake, self.logger, self.header, self._weights = runtime.fake, runtime.logger, header, weights
        self.device = runtime.fake.machine.current
        model = onnx.load_from_string(graph)
        self.inputs = [IOTensor.read(value) for value in model.graph.input]
        self.outputs = [IOTensor.read(value) for value in model.graph.output]
        self.tensors = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        self.session = loaded(graph)
        self.num_io_tensors, self.num_layers = len(self.tensors), len(header.layers)
        self.num_optimization_profiles = max(len(header.profiles), 1)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        if name not in self.tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if self.tensors[name] in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        assert self.get_tensor_mode(name) == TensorIOMode.INPUT, "profiles are of inputs"
        return [Dims(shape) for shape in self.profile(name, profile_index)]

    def profile(self, name: str, index: int) -> list[list[int]]:
        profiles = self.header.profiles
        return profiles[index][name] if profiles else [list(self.tensors[name].shape)] * 3

    @property
    def device_memory_size_v2(self) -> int:
        return max(map(self.get_device_memory_size_for_profile_v2, range(self.num_optimization_profiles)))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return needed({tensor.name: self.profile(tensor.name, profile_index)[2] for tensor in self.inputs})

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self)

    def create_execution_context(self, strategy: Any = Strategy.STATIC) -> "IExecutionContext | None":
        size = 0 if strategy == Strategy.USER_MANAGED else self.device_memory_size_v2
        try:
            if self.fake.contexts_left == 0:
                raise OutOfMemoryError(size, 0, 0)
            own = Block(self.fake.machine, self.device, size) if size else None
            self.fake.machine.use(self.device)
        except (OutOfMemoryError, CUDARuntimeError) as error:
            self.logger.log(Severity.ERROR, describe(error, size))
            return None
        self.fake.contexts_left = self.fake.contexts_left and self.fake.contexts_left - 1
        return IExecutionContext(self, own)


@functools.lru_cache(maxsize=8)
def loaded(graph: bytes) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def needed(shapes: dict[str, Sequence[int]]) -> int:
    """Bytes of activations: as many as float32 inputs, 256 at least."""
    return ALIGNMENT + sum(4 * math.prod(shape) for shape in shapes.values())


class EngineInspector:
    """trt.EngineInspector"""

    __slots__ = "engine", "execution_context"

    def __init__(self, engine: ICudaEngine) -> None:
        self.engine, self.execution_context = engine, None

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        assert format == LayerInformationFormat.JSON, "this inspector writes JSON"
        detailed = self.engine.header.verbosity == "DETAILED"
        layers = self.engine.header.layers if detailed else [layer["Name"] for layer in self.engine.header.layers]
        return json.dumps({"Layers": layers, "Bindings": list(self.engine.tensors)})


class IExecutionContext:
    """trt.IExecutionContext: of one stream."""

    def __init__(self, engine: ICudaEngine, own: Block | None) -> None:
        self.engine, self.fake, self._own = engine, engine.fake, own
        self.active_optimization_profile = 0
        self.shapes = {tensor.name: tensor.shape for tensor in engine.inputs if -1 not in tensor.shape}
        self.addresses: dict[str, int] = {}
        self.memory = (own.memory.address, own.memory.nbytes) if own else (0, 0)
        self._settled: object = None  # what the last execution ran with, so that the next may be captured
        self._stream: int | None = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.fake.machine.stream(stream_handle)
        self.active_optimization_profile, self.shapes = profile_index, {}
        return 0 <= profile_index < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, largest = self.engine.profile(name, self.active_optimization_profile)
        if len(shape) != len(least) or not all(
            low <= size <= high for low, size, high in zip(least, shape, largest, strict=True)
        ):
            return self._error(f"Static dimension mismatch, or {name} {tuple(shape)} is outside [{least}, {largest}]")
        self.shapes[name] = tuple(int(size) for size in shape)
        return True

    @property
    def all_binding_shapes_specified(self) -> bool:
        return len(self.shapes) == len(self.engine.inputs)

    def infer_shapes(self) -> list[str]:
        """:returns: the inputs that have no shape"""
        return [tensor.name for tensor in self.engine.inputs if tensor.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        sizes: dict[int | str, int] = {}
        for tensor in self.engine.inputs:
            sizes.update(zip(tensor.axes, self.shapes.get(tensor.name, ()), strict=False))
        axes = self.engine.tensors[name].axes
        return Dims([axis if isinstance(axis, int) else sizes.get(axis, -1) for axis in axes])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % ALIGNMENT == 0, f"the address of {name} is not {ALIGNMENT}-byte aligned"
        self.addresses[name] = memory
        return name in self.engine.tensors

    def update_device_memory_size_for_shapes(self) -> int:
        return needed(self.shapes) if self.all_binding_shapes_specified else 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % ALIGNMENT == 0, f"the memory of a context is not {ALIGNMENT}-byte aligned"
        assert self._own is None, "the context has its own memory"
        self.memory = memory, size

    def execute_async_v3(self, stream_handle: int) -> bool:
        """:returns: whether it was queued on the stream, which may be capturing"""
        stream = self.fake.machine.stream(stream_handle)
        assert self._stream in {None, stream_handle}, "one execution context runs on two streams"
        assert stream.device_id == self.engine.device, "an engine runs on another GPU"
        self._stream = stream_handle
        missing = self._missing(stream)
        if missing:
            return self._error(missing)
        user = self.fake.scratch.setdefault(self.memory[0], stream_handle)
        assert user == stream_handle, "two contexts compute in the same memory"
        return self._enqueue(stream)

    def _missing(self, stream: Stream) -> str | None:
        """What keeps it from running."""
        if self.fake.executions_left == 0:
            return "Error Code 1: Cuda Runtime (unspecified launch failure)"
        if self.infer_shapes():
            return f"Error Code 3: API Usage Error (no shape of {', '.join(self.infer_shapes())} was set)"
        unset = sorted(self.engine.tensors.keys() - self.addresses.keys())
        if unset:
            return f"Error Code 3: API Usage Error (no address of {', '.join(unset)} was set)"
        if self.memory[1] < needed(self.shapes):
            return f"Error Code 3: API Usage Error ({self.memory[1]} bytes of {needed(self.shapes)} were provided)"
        if stream.recorded is not None and self._settled != self._state():
            stream.invalid = True
            return "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)"
        return None

    def _state(self) -> object:
        return dict(self.shapes), self.memory

    def _enqueue(self, stream: Stream) -> bool:
        self._settled = self._state()
        self.fake.executions_left = self.fake.executions_left and self.fake.executions_left - 1
        shape = tuple(self.shapes[self.engine.inputs[0].name])
        self.fake.executions.append((self.engine.device, shape, stream.recorded is not None))
        try:
            stream.enqueue(self._execution(stream), launch=True)
        except CUDARuntimeError as error:
            return self._error(describe(error, 0))
        return True

    def _execution(self, stream: Stream) -> Callable[[], None]:
        """What the stream does later, with the shapes and addresses of now."""
        view = functools.partial(self.fake.machine.view, device=self.engine.device, stream=stream)
        inputs = [self._place(tensor) for tensor in self.engine.inputs]
        outputs = [self._place(tensor) for tensor in self.engine.outputs]
        (scratch, size), session = self.memory, self.engine.session

        def run() -> None:
            view(scratch, (size,), np.uint8, write=True)[:] = 0xAB
            feed: dict[str, NDArray[Any]] = {name: view(*where).copy() for name, where in inputs}
            for (_, where), value in zip(outputs, session.run(None, feed), strict=True):
                view(*where, write=True)[...] = value

        return run

    def _place(self, tensor: IOTensor) -> tuple[str, tuple[int, tuple[int, ...], Any]]:
        shape = tuple(self.get_tensor_shape(tensor.name))
        return tensor.name, (self.addresses[tensor.name], shape, NUMPY[tensor.dtype])

    def _error(self, message: str) -> bool:
        self.engine.logger.log(Severity.ERROR, f"IExecutionContext: {message}")
        return False
