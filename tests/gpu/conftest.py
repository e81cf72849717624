"""Two GPUs of NumPy."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.fakes import fake_cupy

# A machine that is lent for its GPU may lack Hypothesis. The tests that draw their cases need no GPU.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if not importlib.util.find_spec("hypothesis") and "from hypothesis" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two GPUs in the place of CuPy's."""
    return fake_cupy.install(monkeypatch, gpus=2)


@pytest.fixture
def cupy(machine: Any) -> Any:  # noqa: ARG001
    """The fake."""
    return importlib.import_module("cupy")
