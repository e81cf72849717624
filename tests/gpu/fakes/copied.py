"""What the tests of the fakes share: pinned memory, and a copy that nobody has waited for."""

import importlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gpu.fakes.fake_memory import POISON


def pinned(values: Any) -> NDArray[Any]:
    values = np.asarray(values)
    array: NDArray[Any] = importlib.import_module("cupyx").empty_pinned(values.shape, values.dtype)
    array[...] = values
    return array


def error(cupy: Any, name: str) -> Any:
    return pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=name)


class Copied:
    """Bytes on their way to the GPU and back, with nothing waited for."""

    def __init__(self, cupy: Any, values: NDArray[np.uint8]) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.array = cupy.empty(values.shape, np.uint8)
        self.array.set(values, stream=self.stream)
        self.back = pinned(np.full_like(values, POISON))
        self.array.get(stream=self.stream, out=self.back, blocking=False)
