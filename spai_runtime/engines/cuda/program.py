"""The interface that a back end implements: a graph loaded on a GPU, and its runs on a stream."""

from collections.abc import Sequence
from typing import Any, Protocol

from spai_runtime.engines.base import Array, Contract
from spai_runtime.engines.cuda.gpu import import_cupy

Shape = tuple[int, ...]


class Execution(Protocol):
    """Runs of a graph, one after the other, on one stream.

    :param stream: a stream of CuPy's; a program may use one for all its executions
    """

    stream: Any

    def prepare(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Run once and wait, so that all memory is allocated; afterwards the same `enqueue` is one launch if possible.

        :raises DeviceMemoryError: the GPU has too little memory
        """

    def enqueue(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Queue a run behind what the stream holds, and return at once.

        :param shape: the shape of the input
        :param source, targets: pointers of the input and of the outputs. Each must be the start of its own allocation,
            so that it is aligned as TensorRT requires; a row of an array may not be
        """

    def recorded(self, shape: Shape, source: int, targets: Sequence[int]) -> bool:
        """Whether the same `enqueue`, in this thread, is one launch of a recorded CUDA graph."""

    def close(self) -> None:
        """Give back what was recorded, once the stream has finished; nothing may be queued afterwards."""


class Program(Protocol):
    """A graph loaded on a GPU; the caller must have made that GPU the current one.

    :param largest: the largest input that it takes; None for an axis that has no limit or only one size
    """

    largest: Sequence[int | None]

    def execution(self, stream: Any) -> Execution:
        """The runs of the graph, on that stream or on the program's own stream."""

    def close(self) -> None:
        """Free the graph."""


def pair(shape: Shape, dtype: Any, stream: Any) -> tuple[Any, Array]:
    """An array on the current GPU, and one in pinned memory; a copy between them can run without being waited for."""
    import cupyx  # noqa: PLC0415

    with stream:  # CuPy gives memory that was freed to the same stream again, in whose order that is safe
        return import_cupy().empty(shape, dtype), cupyx.empty_pinned(shape, dtype)


def view_sizes(contract: Contract) -> Shape:
    """The size of an encoder's views: (S, S, 3)."""
    sizes = tuple(size for size in contract.input.shape if isinstance(size, int))
    assert contract.input.dtype == "uint8"
    assert len(sizes) == 3
    return sizes
