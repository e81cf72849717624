"""An execution context of the fake TensorRT: ONNX Runtime computes on the CPU what is queued on a fake stream."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tests.gpu.fakes.fake_machine import Block, CUDARuntimeError
from tests.gpu.fakes.fake_streams import Stream
from tests.gpu.fakes.fake_tensorrt_types import NUMPY, Dims, IOTensor, Severity

if TYPE_CHECKING:
    from tests.gpu.fakes.fake_tensorrt_engine import ICudaEngine

ALIGNMENT = 256
OUT_OF_MEMORY = "Error Code 2: OutOfMemory (Requested size was {size} bytes.)"


def describe(error: Exception, size: int) -> str:
    """How TensorRT logs what CuPy raises."""
    if isinstance(error, CUDARuntimeError):
        return f"Error Code 1: Cuda Runtime ({str(error).partition(': ')[2]})"
    return OUT_OF_MEMORY.format(size=size)


def needed(shapes: dict[str, Sequence[int]]) -> int:
    """Bytes of activations: as many as float32 inputs, 256 at least."""
    return ALIGNMENT + sum(4 * math.prod(shape) for shape in shapes.values())


class IExecutionContext:
    """trt.IExecutionContext: of one stream."""

    def __init__(self, engine: "ICudaEngine", own: Block | None) -> None:
        self.engine, self.fake, self._own = engine, engine.fake, own
        self.shapes = {tensor.name: tensor.shape for tensor in engine.inputs if -1 not in tensor.shape}
        self.addresses: dict[str, int] = {}
        self.memory = (own.memory.address, own.memory.nbytes) if own else (0, 0)
        self._settled: object = None  # what the last execution ran with, so that the next may be captured
        self._stream: int | None = None

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, largest = self.engine._profile(name, 0)
        if len(shape) != len(least) or not all(
            low <= size <= high for low, size, high in zip(least, shape, largest, strict=True)
        ):
            return self._error(f"Static dimension mismatch, or {name} {tuple(shape)} is outside [{least}, {largest}]")
        self.shapes[name] = tuple(int(size) for size in shape)
        return True

    def infer_shapes(self) -> list[str]:
        """:returns: the inputs that have no shape"""
        return [tensor.name for tensor in self.engine.inputs if tensor.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> Any:
        sizes: dict[int | str, int] = {}
        for tensor in self.engine.inputs:
            sizes.update(zip(tensor.axes, self.shapes.get(tensor.name, ()), strict=False))
        axes = self.engine.tensors[name].axes
        return Dims([axis if isinstance(axis, int) else sizes.get(axis, -1) for axis in axes])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % ALIGNMENT == 0, f"the address of {name} is not {ALIGNMENT}-byte aligned"
        self.addresses[name] = memory
        return name in self.engine.tensors

    def update_device_memory_size_for_shapes(self) -> int:
        return 0 if self.infer_shapes() else needed(self.shapes)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % ALIGNMENT == 0, f"the memory of a context is not {ALIGNMENT}-byte aligned"
        assert self._own is None, "the context has its own memory"
        self.memory = memory, size

    def execute_async_v3(self, stream_handle: int) -> bool:
        """:returns: whether it was queued on the stream, which may be capturing"""
        stream = self.fake.machine.stream(stream_handle)
        assert self._stream in {None, stream_handle}, "one execution context runs on two streams"
        assert stream.device_id == self.engine.device, "an engine runs on another GPU"
        self._stream = stream_handle
        missing = self._missing(stream)
        if missing:
            return self._error(missing)
        user = self.fake.scratch.setdefault(self.memory[0], stream_handle)
        assert user == stream_handle, "two contexts compute in the same memory"
        return self._enqueue(stream)

    def _missing(self, stream: Stream) -> str | None:
        """What keeps it from running."""
        if self.fake.executions_left == 0:
            return "Error Code 1: Cuda Runtime (unspecified launch failure)"
        if self.infer_shapes():
            return f"Error Code 3: API Usage Error (no shape of {', '.join(self.infer_shapes())} was set)"
        unset = sorted(self.engine.tensors.keys() - self.addresses.keys())
        if unset:
            return f"Error Code 3: API Usage Error (no address of {', '.join(unset)} was set)"
        if self.memory[1] < needed(self.shapes):
            return f"Error Code 3: API Usage Error ({self.memory[1]} bytes of {needed(self.shapes)} were provided)"
        if stream.recorded is not None and self._settled != self._state():
            stream.invalid = True
            return "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)"
        return None

    def _state(self) -> object:
        return dict(self.shapes), self.memory

    def _enqueue(self, stream: Stream) -> bool:
        self._settled = self._state()
        self.fake.executions_left = self.fake.executions_left and self.fake.executions_left - 1
        shape = tuple(self.shapes[self.engine.inputs[0].name])
        self.fake.executions.append((self.engine.device, shape, stream.recorded is not None))
        try:
            stream.enqueue(self._execution(stream), launch=True)
        except CUDARuntimeError as error:
            return self._error(describe(error, 0))
        return True

    def _execution(self, stream: Stream) -> Callable[[], None]:
        """What the stream does later, with the shapes and addresses of now."""
        view = functools.partial(self.fake.machine.view, device=self.engine.device, stream=stream)
        inputs = [self._place(tensor) for tensor in self.engine.inputs]
        outputs = [self._place(tensor) for tensor in self.engine.outputs]
        (scratch, size), session = self.memory, self.engine.session

        def run() -> None:
            view(scratch, (size,), np.uint8, write=True)[:] = 0xAB
            feed: dict[str, NDArray[Any]] = {name: view(*where).copy() for name, where in inputs}
            for (_, where), value in zip(outputs, session.run(None, feed), strict=True):
                view(*where, write=True)[...] = value

        return run

    def _place(self, tensor: IOTensor) -> tuple[str, tuple[int, tuple[int, ...], Any]]:
        shape = tuple(self.get_tensor_shape(tensor.name))
        return tensor.name, (self.addresses[tensor.name], shape, NUMPY[tensor.dtype])

    def _error(self, message: str) -> bool:
        self.engine.logger.log(Severity.ERROR, f"IExecutionContext: {message}")
        return False
