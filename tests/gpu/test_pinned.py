"""Pinned memory where there is some."""

from typing import Any

import numpy as np
import pytest

from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.cuda.pinned import pinned_pixels


def is_pinned(machine: Any, array: np.ndarray) -> bool:  # type: ignore[type-arg]
    assert array.dtype == np.uint8
    return machine.find(array.ctypes.data) is not None


def test_pixels_are_pinned(machine: Any) -> None:
    for index in (0, 1):
        pixels = pinned_pixels(Gpu.find(f"cuda:{index}"), (30, 20, 3))
        assert pixels.shape == (30, 20, 3)
        assert is_pinned(machine, pixels)
    assert machine.touched == {0, 1}


def test_where_there_is_none(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is too large for the pool, a GPU that was lost."""
    gpu = Gpu.find("cuda:0")
    with monkeypatch.context() as patch:
        patch.setattr("spai_runtime.engines.cuda.pinned.PINNED_BYTES", 30 * 20 * 3)
        assert is_pinned(machine, pinned_pixels(gpu, (30, 20, 3)))
        assert not is_pinned(machine, pinned_pixels(gpu, (30, 21, 3)))
    machine.lose(0)
    assert not is_pinned(machine, pinned_pixels(gpu, (30, 20, 3)))
