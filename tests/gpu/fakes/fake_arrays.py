"""cupy.ndarray and pinned memory without a GPU."""

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tests.gpu.fakes.fake_machine import Block, Machine
from tests.gpu.fakes.fake_memory import Memory
from tests.gpu.fakes.fake_streams import Operation, Stream, current_stream


class MemoryPointer:
    """cupy.cuda.MemoryPointer: an address, and who keeps the memory there."""

    def __init__(self, mem: object, ptr: int) -> None:
        self.mem, self.ptr = mem, ptr


def alloc(machine: Machine, size: int) -> MemoryPointer:
    """cupy.cuda.alloc: poison."""
    block = Block(machine, machine.current, size)
    return MemoryPointer(block, block.memory.address)


class ndarray:  # noqa: N801  its name in CuPy
    """cupy.ndarray: a NumPy array on memory of which it is not the owner, so that freeing it shows."""

    machine: ClassVar[Machine]

    def __init__(self, memory: Memory, values: NDArray[Any], owner: object) -> None:
        self._memory, self._values = memory, values
        self.data = MemoryPointer(owner, values.ctypes.data)
        self.shape, self.dtype, self.size, self.nbytes = values.shape, values.dtype, values.size, values.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        described = {"shape": self.shape, "typestr": self.dtype.str, "strides": None, "stream": None}
        return {**described, "data": (self.data.ptr, False), "version": 3}

    def __getitem__(self, key: Any) -> "ndarray":
        keys = key if isinstance(key, tuple) else (key,)
        assert all(isinstance(part, int | slice | type(...)) for part in keys), "only basic slices are views"
        view = self._values[keys if ... in keys else (*keys, ...)]
        return type(self)(self._memory, view, self.data.mem)

    def __setitem__(self, key: Any, value: "ndarray | float") -> None:
        target, stream = self[key], self._on(None)
        if isinstance(value, ndarray):
            self.machine.use(value._memory.device)
            stream.enqueue(target._writing(value._values, stream, value._memory))
        else:
            stream.enqueue(target._writing(value, stream))

    def set(self, arr: NDArray[Any], stream: Stream | None = None) -> None:
        """From pinned memory when the stream gets there, from other memory as it is now."""
        self._fits(arr)
        if not self._values.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        if stream is None and not self.machine.local.streams:
            self.machine.interrupt()
            self.machine.use(self._memory.device)
            self._values[...] = arr
            return
        source = pinned_view(self.machine, arr)
        if source is None:
            source = arr.copy()
            self.machine.pageable_copies += 1
        chosen = self._on(stream)
        chosen.enqueue(self._writing(source, chosen))

    def get(
        self, stream: Stream | None = None, order: str = "C", out: NDArray[Any] | None = None, blocking: bool = True
    ) -> NDArray[Any]:
        assert order == "C" and self._values.flags.c_contiguous
        target = np.empty(self.shape, self.dtype) if out is None else out
        self._fits(target)
        place = pinned_view(self.machine, target)
        assert blocking or place is not None, "a copy to memory that is not pinned cannot be asynchronous"
        chosen = self._on(stream)
        chosen.enqueue(self._reading(target if place is None else place, chosen))
        if blocking:
            chosen.synchronize()
        return target

    def _on(self, stream: Stream | None) -> Stream:
        self.machine.use(self._memory.device)
        return stream or current_stream(self.machine)

    def _writing(self, values: Any, stream: Stream, source: Memory | None = None) -> Operation:
        """The operation, which keeps nothing alive. :param source: where the values lie, if on the GPU"""
        memory, target = self._memory, self._values

        def write() -> None:
            if source is not None:
                source.access(stream, write=False)
            memory.access(stream, write=True)
            target[...] = values

        return write

    def _reading(self, target: NDArray[Any], stream: Stream) -> Operation:
        memory, source = self._memory, self._values

        def read() -> None:
            memory.access(stream, write=False)
            target[...] = source

        return read

    def _fits(self, host: object) -> None:
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if host.dtype != self.dtype:
            raise TypeError(f"{host.dtype} array cannot be set to {self.dtype} array")
        if host.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {host.shape}")


def empty(machine: Machine, kind: type[ndarray], shape: Any, dtype: Any = float) -> ndarray:
    """cupy.empty: poison."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    block = Block(machine, machine.current, math.prod(shape) * np.dtype(dtype).itemsize)
    return kind(block.memory, block.memory.view(block.memory.address, shape, dtype), block)


def asarray(machine: Machine, kind: type[ndarray], a: Any) -> ndarray:
    """cupy.asarray, of what lies on the GPU already."""
    if isinstance(a, ndarray):
        return a
    described = a.__cuda_array_interface__
    pointer = described["data"][0]
    memory = machine.find(pointer)
    assert memory is not None and not memory.freed and memory.device is not None, "no memory of a GPU"
    machine.use(memory.device)
    if described.get("stream") in machine.streams:
        machine.streams[described["stream"]].synchronize()
    assert described.get("strides") is None, "contiguous arrays only"
    shape, dtype = tuple(described["shape"]), described["typestr"]
    return kind(memory, machine.view(pointer, shape, dtype, memory.device), a)


class Pinned:
    """Who NumPy keeps for an array in pinned memory."""

    def __init__(self, block: Block, shape: tuple[int, ...], dtype: Any) -> None:
        self.block = block
        self.__array_interface__ = {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (block.memory.address, False),
            "version": 3,
        }


def empty_pinned(machine: Machine, shape: Any, dtype: Any = float) -> NDArray[Any]:
    """cupyx.empty_pinned: poison."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    block = Block(machine, None, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.asarray(Pinned(block, shape, dtype))


def pinned_view(machine: Machine, array: NDArray[Any]) -> NDArray[Any] | None:
    """The same memory, which is poisoned all the same when the array's owner goes; None if it is not pinned."""
    memory = machine.find(array.ctypes.data)
    if memory is None or memory.device is not None or not array.flags.c_contiguous:
        return None
    return memory.view(array.ctypes.data, array.shape, array.dtype)
