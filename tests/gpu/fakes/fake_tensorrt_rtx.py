"""`import tensorrt_rtx` without a GPU: the fake TensorRT, with what TensorRT for RTX has besides.

Its enums are the real ones. A plan begins with its header, of which `engine_header_size` bytes say the version; what is
compiled for a shape is said in `FakeRtx.compiled`, unless the runtime cache has it.
"""

import importlib.machinery
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_tensorrt import runtime_names
from tests.gpu.fakes.fake_tensorrt_context import IExecutionContext
from tests.gpu.fakes.fake_tensorrt_engine import ICudaEngine, IRuntimeConfig, Runtime
from tests.gpu.fakes.fake_tensorrt_plans import MAGIC, Header
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT, IHostMemory, Strategy, of_fake, real

HEADER = 64  # bytes, as in TensorRT for RTX 1.7
CAPABILITIES = (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)


@dataclass
class FakeRtx(FakeTensorRT):
    """Knobs besides those of TensorRT.

    :param diagnostics: bits that `get_engine_validity` gives beside those that follow from plan and GPU
    :param suboptimal: whether they make a plan slow alone
    :param driver: that a runtime cache belongs to
    :param capturable: what `is_stream_capturable` says
    :param compiled: shapes that were compiled for
    :param configs: of the execution contexts that were made
    """

    diagnostics: int = 0
    suboptimal: bool = False
    driver: str = "13.0"
    capturable: bool = True
    compiled: list[str] = field(default_factory=list)
    configs: list["RtxConfig"] = field(default_factory=list)


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine, version: str = "1.7.1.116") -> FakeRtx:
    """Puts `tensorrt_rtx` into sys.modules until the test ends."""
    fake = FakeRtx(machine, version, lean=False)
    made = ModuleType("tensorrt_rtx")
    made.__spec__ = importlib.machinery.ModuleSpec(made.__name__, None)
    enums = (
        "EngineValidity",
        "EngineInvalidityDiagnostics",
        "DynamicShapesKernelSpecializationStrategy",
        "CudaGraphStrategy",
    )
    vars(made).update(runtime_names(fake), **{name: getattr(real, name) for name in enums})
    vars(made).update(Runtime=of_fake(fake, RtxRuntime))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return fake


class RtxRuntime(Runtime):
    """trt.Runtime"""

    __slots__ = ()
    _fake: FakeRtx
    engine_header_size = HEADER

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        valid, bits = real.EngineValidity, real.EngineInvalidityDiagnostics
        found = self._fake.diagnostics
        if len(buffer) != HEADER or not buffer.startswith(MAGIC):
            return valid.INVALID, int(bits.MALFORMED_ENGINE)
        if f'"version": "{self._fake.version}"'.encode() not in buffer:
            found |= int(bits.VERSION_MISMATCH)
        if self._fake.machine.gpus[self._fake.machine.current].capability not in CAPABILITIES:
            found |= int(bits.UNSUPPORTED_CC)
        if not found:
            return valid.VALID, 0
        return (valid.SUBOPTIMAL if self._fake.suboptimal else valid.INVALID), found

    def _refusal(self, header: Header) -> str | None:
        return None if header.version == self._fake.version else "Error Code 6: API Usage Error (another version)"

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "RtxEngine | None":
        engine = super().deserialize_cuda_engine(serialized_engine)
        if engine is not None:
            engine.__class__ = RtxEngine
        return engine  # type: ignore[return-value]


class RtxEngine(ICudaEngine):
    """trt.ICudaEngine"""

    fake: FakeRtx

    def create_runtime_config(self) -> "RtxConfig":
        return RtxConfig(self.fake)

    def create_execution_context(self, runtime_config: Any = Strategy.STATIC) -> "RtxContext | None":
        context = super().create_execution_context(runtime_config)
        if context is None:
            return None
        context.__class__ = RtxContext
        assert isinstance(context, RtxContext)
        context.config = runtime_config
        self.fake.configs.append(runtime_config)
        return context


class RtxContext(IExecutionContext):
    """trt.IExecutionContext: compiles for each shape that it is the first to see."""

    fake: FakeRtx
    config: "RtxConfig"

    def is_stream_capturable(self, stream: int) -> bool:
        assert self.fake.machine.stream(stream)
        return self.fake.capturable

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = self.fake.machine.stream(stream_handle)
        shapes = ";".join(f"{name} {shape}" for name, shape in sorted(self.shapes.items()))
        if self.config._cache is None or shapes not in self.config._cache._kernels:
            if stream.recorded is not None:
                return self._error("Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
            self.fake.compiled.append(shapes)
            if self.config._cache is not None:
                self.config._cache._kernels.append(shapes)
        return super().execute_async_v3(stream_handle)


class RtxConfig(IRuntimeConfig):
    """trt.IRuntimeConfig"""

    __slots__ = ("_cache", "_fake", "cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy")

    def __init__(self, fake: FakeRtx) -> None:
        super().__init__()
        self._fake, self._cache = fake, None
        self.cuda_graph_strategy = real.CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = real.DynamicShapesKernelSpecializationStrategy.LAZY

    def create_runtime_cache(self) -> "IRuntimeCache":
        return IRuntimeCache(self._fake)

    def set_runtime_cache(self, cache: "IRuntimeCache | None" = None) -> bool:
        self._cache = cache
        return True


class IRuntimeCache:
    """trt.IRuntimeCache: of one GPU, driver and release."""

    __slots__ = "_fake", "_kernels"

    def __init__(self, fake: FakeRtx) -> None:
        self._fake, self._kernels = fake, list[str]()

    @property
    def _made_for(self) -> str:
        gpu = self._fake.machine.gpus[self._fake.machine.use()]
        return f"kernels {self._fake.version} {gpu.name} {self._fake.driver}"

    def serialize(self) -> IHostMemory:
        return IHostMemory("\n".join([self._made_for, *self._kernels]).encode())

    def deserialize(self, blob: bytes) -> bool:
        """:returns: whether it was compatible, and is loaded"""
        made_for, *kernels = bytes(memoryview(blob)).decode(errors="replace").split("\n")
        if made_for != self._made_for:
            return False
        self._kernels[:] = kernels
        return True
