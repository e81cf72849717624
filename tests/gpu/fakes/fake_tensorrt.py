"""`import tensorrt` without TensorRT: a plan is an ONNX graph with a header, run by ONNX Runtime on the CPU.

Names, signatures and what fails how are those of the bindings of 10.12 and 11.4; the traps of the documentation are
errors. Memory and streams are those of `fake_cupy.install`'s machine.
"""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_tensorrt_builder import builder_names
from tests.gpu.fakes.fake_tensorrt_engine import (
    EngineInspector,
    ICudaEngine,
    IExecutionContext,
    IRuntimeConfig,
    Runtime,
)
from tests.gpu.fakes.fake_tensorrt_types import (
    DataType,
    Dims,
    FakeTensorRT,
    IHostMemory,
    ILogger,
    LayerInformationFormat,
    Logger,
    ProfilingVerbosity,
    Strategy,
    TensorIOMode,
    of_fake,
)


def install(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, version: str = "11.4.0.106", *, lean: bool = False
) -> FakeTensorRT:
    """Puts `tensorrt`, or `tensorrt_lean`, into sys.modules until the test ends."""
    fake = FakeTensorRT(machine, version, lean)
    made = ModuleType("tensorrt_lean" if lean else "tensorrt")
    made.__spec__ = importlib.machinery.ModuleSpec(made.__name__, None)
    vars(made).update(runtime_names(fake), **({} if lean else builder_names(fake)))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return fake


def runtime_names(fake: FakeTensorRT) -> dict[str, Any]:
    """What `tensorrt` and `tensorrt_lean` have in common."""
    classes = (ILogger, Logger, ICudaEngine, IExecutionContext, IRuntimeConfig, EngineInspector, IHostMemory, Dims)
    enums = (DataType, TensorIOMode, Strategy, LayerInformationFormat, ProfilingVerbosity)
    return {
        "__version__": fake.version,
        "Runtime": of_fake(fake, Runtime),
        **{item.__name__: item for item in (*classes, *enums)},
    }
