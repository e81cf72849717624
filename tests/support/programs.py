"""A program on the GPU of `fake_cupy` that sums, and an engine around it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract
from spai_runtime.engines.cuda.engine import CudaEngine, Gpu
from tests.support.detectors import FEATURES


class SumsProgram:
    """A program whose output is the input summed over its middle axes, or over the last where there is but one.

    :param own: it has one stream for all executions
    """

    def __init__(self, machine: Any, largest: Sequence[int | None], *, own: bool) -> None:
        import cupy  # noqa: PLC0415  the fake

        self.machine, self.largest = machine, largest
        self.stream = cupy.cuda.Stream(non_blocking=True) if own else None
        self.prepared: list[tuple[int, ...]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.closed, self.closed_executions = False, 0

    def execution(self, stream: Any) -> "SumsExecution":
        return SumsExecution(self, self.stream or stream)

    def close(self) -> None:
        self.closed = True


class SumsExecution:
    def __init__(self, program: SumsProgram, stream: Any) -> None:
        self.program, self.stream = program, stream

    def prepare(self, shape: tuple[int, ...], source: int, targets: Sequence[int]) -> None:
        self.enqueue(shape, source, targets)
        self.stream.synchronize()
        self.program.prepared.append(self.program.shapes.pop())

    def recorded(self, shape: tuple[int, ...], source: int, targets: Sequence[int]) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        self.program.closed_executions += 1

    def enqueue(self, shape: tuple[int, ...], source: int, targets: Sequence[int]) -> None:
        machine, device = self.program.machine, self.stream.device_id
        self.program.shapes.append(shape)

        def run() -> None:
            values = machine.view(source, shape, np.uint8 if len(shape) == 4 else np.float32, device)
            sums = summed(values)
            machine.view(targets[0], sums.shape, np.float32, device, write=True)[...] = sums

        self.stream.enqueue(run, launch=True)


def summed(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.sum((1, 2) if values.ndim == 4 else 2, dtype=np.float32)


def cuda_engine(machine: Any, device: str) -> CudaEngine:
    card = Gpu.find(device)
    with card:
        program = SumsProgram(machine, (None,) * 4, own=False)
    return CudaEngine(card, program, Contract.encoder((32, 32), FEATURES), "Sums 1.0", 4)
