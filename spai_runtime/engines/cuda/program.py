"""What a back end gives: a graph loaded on a GPU, and its runs on a stream."""

from collections.abc import Sequence
from typing import Any, Protocol

from spai_runtime.engines.base import Array, Contract
from spai_runtime.engines.cuda.gpu import import_cupy

Shape = tuple[int, ...]


class Execution(Protocol):
    """Runs of a graph, one after the other on one stream.

    :param stream: CuPy's; a program may have one for all its executions
    """

    stream: Any

    def prepare(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Runs once and waits, so that all memory is there; then `enqueue` of the same is one launch where it can be.

        :raises DeviceMemoryError: it does not fit
        """

    def enqueue(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """Queues a run behind what the stream holds, and returns.

        :param shape: of the input
        :param source, targets: pointers of the input and of the outputs; each begins an allocation of its own, so that
            it is aligned as TensorRT wants, which a row of an array need not be
        """

    def recorded(self, shape: Shape, source: int, targets: Sequence[int]) -> bool:
        """Whether `enqueue` of the same, in this thread, is one launch of a recorded CUDA graph."""

    def close(self) -> None:
        """Gives back what was recorded, once the stream is through with it; nothing is enqueued afterwards."""


class Program(Protocol):
    """A graph loaded on a GPU; whoever calls has made that GPU the current one.

    :param largest: input that it takes, None where an axis has no limit or is of one size
    """

    largest: Sequence[int | None]

    def execution(self, stream: Any) -> Execution:
        """Its runs, on that stream or on the program's own."""

    def close(self) -> None:
        """Frees the graph."""


def pair(shape: Shape, dtype: Any, stream: Any) -> tuple[Any, Array]:
    """An array on the current GPU, and one in pinned memory, which copies to and from it need not be waited for."""
    import cupyx  # noqa: PLC0415

    with stream:  # CuPy gives memory that was freed to the same stream again, in whose order that is safe
        return import_cupy().empty(shape, dtype), cupyx.empty_pinned(shape, dtype)


def view_sizes(contract: Contract) -> Shape:
    """(S, S, 3), of an encoder's."""
    sizes = tuple(size for size in contract.input.shape if isinstance(size, int))
    assert contract.input.dtype == "uint8"
    assert len(sizes) == 3
    return sizes
