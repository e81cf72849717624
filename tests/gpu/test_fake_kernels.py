"""The fake kernels refuse what CUDA refuses: pointers to nowhere, arguments that do not fit, text that is no code."""

from typing import Any

import numpy as np
import pytest

from tests.gpu.fakes.copied import error
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_memory import POISON


def test_a_pointer_to_what_was_freed(cupy: Any) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = ((const unsigned char*)table[i])[1]")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        images, table, y = [cupy.empty(3, np.uint8) for _ in range(2)], cupy.empty(2, np.int64), cupy.empty(2, np.uint8)
        for value, image in enumerate(images):
            image.set(np.full(3, value + 7, np.uint8), stream=stream)
        table.set(np.array([image.data.ptr for image in images]), stream=stream)
        del images[1], image
        kernel(table, y)
        np.testing.assert_array_equal(y.get(stream=stream), [7, POISON])


@pytest.mark.parametrize("kind", ["never written", "another GPU's", "the host's"])
def test_pointers_to_nowhere(cupy: Any, kind: str) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = *(const unsigned char*)table[i]")
    with cupy.cuda.Device(1):
        elsewhere = cupy.empty(4, np.uint8)
    pointers = {"another GPU's": elsewhere.data.ptr, "the host's": np.zeros(4, np.uint8).ctypes.data}
    with cupy.cuda.Stream(non_blocking=True) as stream:
        table, y = cupy.empty(1, np.int64), cupy.empty(1, np.uint8)
        if kind in pointers:
            table.set(np.array([pointers[kind]]), stream=stream)
        kernel(table, y)
        with error(cupy, "IllegalAddress"):
            stream.synchronize()


def test_what_is_no_kernel(cupy: Any, machine: Machine) -> None:
    kernel = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = table[0]")
    wrong = cupy.ElementwiseKernel("raw int64 table", "uint8 y", "y = unknown")
    with cupy.cuda.Stream(non_blocking=True):
        table, y = cupy.empty(1, np.int64), cupy.empty(1, np.uint8)
        for called, arguments, kind, message in (
            (kernel, (y, y), TypeError, "Type is mismatched"),
            (kernel, (np.zeros(1, np.int64), y), TypeError, r"cupy\.ndarray"),
            (kernel, (table,), AssertionError, "2 arguments"),
            (wrong, (table, y), AssertionError, "unknown"),
        ):
            with pytest.raises(kind, match=message):
                called(*arguments)
    with pytest.raises(AssertionError, match="null stream"):
        kernel(table, y)
    assert machine.kernel_launches == 0
