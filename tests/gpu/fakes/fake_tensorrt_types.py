"""What the parts of the fake TensorRT share. Its enums, `Dims` and base of loggers are those of TensorRT for RTX."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest

from tests.gpu.fakes.fake_machine import CUDARuntimeError, Machine

real = pytest.importorskip("tensorrt_rtx", reason="the fake takes its types from tensorrt-rtx, for Linux on x86-64")

DataType, Dims, ILogger, TensorIOMode = real.DataType, real.Dims, real.ILogger, real.TensorIOMode
Severity, Strategy = real.ILogger.Severity, real.ExecutionContextAllocationStrategy
LayerInformationFormat = real.LayerInformationFormat

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
class FakeTensorRT:
    """Knobs, and what happened.

    :param contexts_left: execution contexts that there is memory for; None: as many as fit
    :param executions_left: before `execute_async_v3` returns False
    :param executions: (GPU, shape of the first input, whether captured) of each that was queued
    """

    machine: Machine
    version: str
    lean: bool
    contexts_left: int | None = None
    executions_left: int | None = None
    executions: list[tuple[int, tuple[int, ...], bool]] = field(default_factory=list)
    scratch: dict[int, int] = field(default_factory=dict)  # address → handle of the stream that uses it

    @property
    def capability(self) -> tuple[int, int]:
        """Of the current GPU."""
        return self.machine.gpus[self.machine.use()].capability

    def start(self, logger: Any) -> None:
        """:raises TypeError: what pybind11 says where there is no GPU, and of a logger that is none"""
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments")
        try:
            self.machine.use()
        except CUDARuntimeError as error:
            logger.log(Severity.ERROR, f"CUDA initialization failure with error: {error.status}")
            raise TypeError("pybind11::init(): factory function returned nullptr") from None


def of_fake(fake: FakeTensorRT, kind: type) -> type:
    """The class as the module has it; like pybind11's, its objects have no attributes but their own."""
    return type(kind.__name__, (kind,), {"_fake": fake, "__slots__": ()})


class IHostMemory(bytes):
    """trt.IHostMemory: a buffer, of which `len` knows nothing."""

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
