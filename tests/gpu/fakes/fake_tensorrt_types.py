"""What both halves of the fake TensorRT share: its enums, its small types, and the plan, a graph with a header."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import onnx

from tests.gpu.fakes.fake_machine import CUDARuntimeError, Machine

MAGIC = b"ftrt"


def members(name: str, text: str) -> Any:
    return IntEnum(name, text.split(), start=0)  # numbered otherwise in every release: nobody may keep them


Severity = members("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
DataType = members("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4 FP4")
TensorIOMode = members("TensorIOMode", "NONE INPUT OUTPUT")
Strategy = members("ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
LayerInformationFormat = members("LayerInformationFormat", "ONELINE JSON")
ProfilingVerbosity = members("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")

TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BOOL: DataType.BOOL,
}
NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
}


@dataclass
class Header:
    """What a plan says beside its graph.

    :param profiles: input → least, best and largest shape
    """

    version: str
    capability: tuple[int, int]
    strongly_typed: bool
    flags: list[str]
    profiles: list[dict[str, list[list[int]]]]
    verbosity: str
    optimization_level: int
    workspace: int
    layers: list[dict[str, Any]]


@dataclass
class FakeTensorRT:
    """Knobs, and what happened.

    :param build_fails: what the builder logs then
    :param contexts_left: execution contexts that there is memory for; None: as many as fit
    :param layers: what the engine inspector says of plans that are built; None: something plausible
    :param executions_left: before `execute_async_v3` returns False
    :param builds: the headers of the plans that were built
    :param executions: (GPU, shape of the first input, whether captured) of each that was queued
    """

    machine: Machine
    version: str
    lean: bool
    build_fails: str | None = None
    contexts_left: int | None = None
    executions_left: int | None = None
    layers: list[dict[str, Any]] | None = None
    builds: list[Header] = field(default_factory=list)
    executions: list[tuple[int, tuple[int, ...], bool]] = field(default_factory=list)
    scratch: dict[int, int] = field(default_factory=dict)  # address → handle of the stream that uses it

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def start(self, logger: object) -> None:
        """:raises TypeError: what pybind11 says where there is no GPU, and of a logger that is none"""
        if not isinstance(logger, ILogger) or not getattr(logger, "_made", False):
            raise TypeError("__init__(): incompatible constructor arguments; or ILogger.__init__ was not called")
        try:
            self.machine.use()
        except CUDARuntimeError as error:
            logger.log(Severity.ERROR, f"CUDA initialization failure with error: {error.status}")
            raise TypeError("pybind11::init(): factory function returned nullptr") from None


def of_fake(fake: FakeTensorRT, kind: type) -> type:
    """The class as the module has it; like pybind11's, its objects have no attributes but their own."""
    return type(kind.__name__, (kind,), {"fake": fake, "__slots__": ()})


class ILogger:
    """Must be initialised by who derives from it."""

    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    """Keeps what it is told, instead of printing it."""

    def __init__(self, min_severity: Any = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity, self.messages = min_severity, list[str]()

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self.min_severity:
            self.messages.append(msg)


class Dims:
    """A sequence that equals tuples and lists, and is neither."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dims | tuple | list) and self._shape == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._shape)


class IHostMemory(bytes):
    """A buffer, of which `len` knows nothing."""

    __len__ = None  # type: ignore[assignment]

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes


@dataclass(frozen=True)
class IOTensor:
    """Of an engine; -1 is a dynamic axis, whose name is in `axes`."""

    name: str
    dtype: Any
    axes: tuple[int | str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes)

    @classmethod
    def read(cls, value: onnx.ValueInfoProto) -> "IOTensor":
        kind = value.type.tensor_type
        axes = (axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in kind.shape.dim)
        return cls(value.name, TYPES[kind.elem_type], tuple(axes))


def write_plan(header: Header, graph: bytes) -> IHostMemory:
    """The bytes that `build_serialized_network` returns."""
    text = json.dumps(asdict(header)).encode()
    return IHostMemory(MAGIC + len(text).to_bytes(8, "little") + text + graph)


def read_plan(plan: bytes) -> tuple[Header, bytes] | None:
    """Its header and graph; None if it is no plan."""
    if not plan.startswith(MAGIC):
        return None
    length = int.from_bytes(plan[4:12], "little")
    fields = json.loads(plan[12 : 12 + length])
    return Header(**{**fields, "capability": tuple(fields["capability"])}), plan[12 + length :]
