"""Two GPUs of NumPy."""

import importlib
from typing import Any

import pytest

from tests.gpu.fakes import fake_cupy


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two GPUs in the place of CuPy's."""
    return fake_cupy.install(monkeypatch, gpus=2)


@pytest.fixture
def cupy(machine: Any) -> Any:  # noqa: ARG001
    """The fake."""
    return importlib.import_module("cupy")
