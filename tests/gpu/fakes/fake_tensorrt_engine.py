"""The half of the fake TensorRT that reads plans and says what is in them."""

import functools
import json
from typing import Any, ClassVar

import onnx
from onnxruntime import InferenceSession, SessionOptions

from tests.gpu.fakes.fake_machine import Block, CUDARuntimeError, OutOfMemoryError
from tests.gpu.fakes.fake_tensorrt_context import IExecutionContext, describe, needed
from tests.gpu.fakes.fake_tensorrt_plans import Header, Shapes, read_plan
from tests.gpu.fakes.fake_tensorrt_types import (
    Dims,
    FakeTensorRT,
    IOTensor,
    LayerInformationFormat,
    Severity,
    Strategy,
    TensorIOMode,
)


class Runtime:
    """trt.Runtime"""

    __slots__ = "engine_host_code_allowed", "logger"
    _fake: ClassVar[FakeTensorRT]

    def __init__(self, logger: Any) -> None:
        self._fake.start(logger)
        self.logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        plan = bytes(memoryview(serialized_engine))
        read = read_plan(plan)
        refused = "Error Code 1: Serialization (magicTag match)" if read is None else self._refusal(read[0])
        if refused or read is None:
            self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: {refused}")
            return None
        try:
            weights = Block(self._fake.machine, self._fake.machine.use(), len(read[1]))
        except (OutOfMemoryError, CUDARuntimeError) as error:
            self.logger.log(Severity.ERROR, describe(error, len(plan)))
            return None
        return ICudaEngine(self, *read, weights)

    def _refusal(self, header: Header) -> str | None:
        """Why a plan is not for this release or this GPU."""
        capability = self._fake.capability
        mine, its = version_numbers(self._fake.version), version_numbers(header.version)
        compatible = "VERSION_COMPATIBLE" in header.flags
        embeds = compatible and "EXCLUDE_LEAN_RUNTIME" not in header.flags
        if self._fake.lean and not compatible:
            return "Error Code 6: API Usage Error (the lean runtime takes version compatible plans only)"
        if embeds and not self.engine_host_code_allowed:
            return "Error Code 4: API Usage Error (setEngineHostCodeAllowed is required for a plan with a lean runtime)"
        if (mine < its) if embeds else (mine != its):
            versions = f"expecting library version {header.version} got {self._fake.version}"
            return f"Error Code 6: API Usage Error (The engine plan file is of another version, {versions})"
        if capability != header.capability:
            computes = f"expecting compute {dotted(capability)} got compute {dotted(header.capability)}"
            return f"Error Code 6: API Usage Error (The engine plan file is for an incompatible device, {computes})"
        return None


def dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


class ICudaEngine:
    """trt.ICudaEngine"""

    def __init__(self, runtime: Runtime, header: Header, graph: bytes, weights: Block) -> None:
        self.fake, self.logger, self.header, self._weights = runtime._fake, runtime.logger, header, weights
        self.device = runtime._fake.machine.current
        model = onnx.load_from_string(graph)
        self.inputs = [IOTensor.read(value) for value in model.graph.input]
        self.outputs = [IOTensor.read(value) for value in model.graph.output]
        self.tensors = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        self.session = loaded(graph)
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        if name not in self.tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if self.tensors[name] in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> Any:
        return Dims(self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        assert self.get_tensor_mode(name) == TensorIOMode.INPUT, "profiles are of inputs"
        return [Dims(shape) for shape in self._profile(name, profile_index)]

    def _profile(self, name: str, index: int) -> Shapes:
        profiles = self.header.profiles
        return profiles[index][name] if profiles else [self.tensors[name].shape] * 3

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self)

    def create_runtime_config(self) -> "IRuntimeConfig":
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = Strategy.STATIC) -> "IExecutionContext | None":
        config = runtime_config if isinstance(runtime_config, IRuntimeConfig) else None
        strategy = config.get_execution_context_allocation_strategy() if config else runtime_config
        largest = {tensor.name: self._profile(tensor.name, 0)[2] for tensor in self.inputs}
        size = 0 if strategy == Strategy.USER_MANAGED else needed(largest)
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


class IRuntimeConfig:
    """trt.IRuntimeConfig"""

    __slots__ = ("_strategy",)

    def __init__(self) -> None:
        self._strategy: Any = Strategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: Any = Strategy.STATIC) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy


class EngineInspector:
    """trt.EngineInspector"""

    __slots__ = "_engine", "execution_context"

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self.execution_context = engine, None

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        assert format == LayerInformationFormat.JSON, "this inspector writes JSON"
        return json.dumps({"Layers": self._engine.header.layers, "Bindings": list(self._engine.tensors)})
