"""Two GPUs of NumPy."""

from typing import Any

import pytest

from tests.gpu.fakes import fake_cupy


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two GPUs in the place of CuPy's."""
    return fake_cupy.install(monkeypatch, gpus=2)
