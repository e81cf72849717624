"""`import tensorrt` without TensorRT: a plan is an ONNX graph with a header, run by ONNX Runtime on the CPU.

This is the half that runs plans; what builds them in the tests is real (`tests/gpu/real_builder.py`). Names and
signatures are held against the real bindings (`tests/gpu/test_bindings.py`); the documentation's traps are errors.
Memory and streams are those of `fake_cupy.install`'s machine.
"""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.fakes.fake_machine import Machine
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
    ILogger,
    LayerInformationFormat,
    Strategy,
    TensorIOMode,
    of_fake,
)

NAMES = (ILogger, Dims, ICudaEngine, IExecutionContext, IRuntimeConfig, EngineInspector)
ENUMS = (DataType, TensorIOMode, Strategy, LayerInformationFormat)


def install(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, version: str = "11.4.0.106", *, lean: bool = False
) -> FakeTensorRT:
    """Puts `tensorrt`, or `tensorrt_lean`, into sys.modules until the test ends."""
    fake = FakeTensorRT(machine, version, lean)
    made: Any = ModuleType("tensorrt_lean" if lean else "tensorrt")
    made.__spec__ = importlib.machinery.ModuleSpec(made.__name__, None)
    vars(made).update(runtime_names(fake))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return fake


def runtime_names(fake: FakeTensorRT) -> dict[str, Any]:
    """What all that run plans have in common."""
    names = {item.__name__: item for item in (*NAMES, *ENUMS)}
    return {"__version__": fake.version, "Runtime": of_fake(fake, Runtime), **names}
