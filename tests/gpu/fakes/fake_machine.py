"""GPUs without a GPU: their memory, what happened on them, and the knobs that make it happen."""

import bisect
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tests.gpu.fakes.fake_memory import Memory

if TYPE_CHECKING:
    from tests.gpu.fakes.fake_streams import Stream

STATUSES = {
    2: "cudaErrorMemoryAllocation: out of memory",
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    46: "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    222: "cudaErrorUnsupportedPtxVersion: the provided PTX was compiled with an unsupported toolchain.",
    400: "cudaErrorInvalidResourceHandle: invalid resource handle",
    401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture",
    905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream",
    907: "cudaErrorCapturedEvent: operation not permitted on an event last recorded in a capturing stream",
    908: "cudaErrorStreamCaptureWrongThread: attempt to terminate a thread-local capture sequence from another thread",
}
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2  # cupy.cuda.runtime.streamCaptureMode…


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError"""

    def __init__(self, status: int) -> None:
        super().__init__(STATUSES[status])
        self.status = status


class CUDADriverError(RuntimeError):
    """cupy.cuda.driver.CUDADriverError, with which launching a kernel fails; it is no CUDARuntimeError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA_ERROR_{status}: {STATUSES[status].partition(': ')[2]}")
        self.status = status


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError"""

    def __init__(self, size: int, total: int, limit: int) -> None:
        sizes = f"allocated so far: {total:,} bytes, limit set to: {limit:,} bytes"
        super().__init__(f"Out of memory allocating {size:,} bytes ({sizes}).")


@dataclass
class Gpu:
    """What one GPU has, holds, and still does.

    :param used: bytes allocated
    :param launches_left: before it fails; None: it does not
    :param failed: the status that every call returns from then on
    """

    memory: int
    capability: tuple[int, int]
    name: str
    used: int = 0
    launches_left: int | None = None
    status: int = 46
    failed: int | None = None


class Block:
    """Who holds the last reference to this holds the memory."""

    def __init__(self, machine: "Machine", device: int | None, nbytes: int) -> None:
        self.machine, self.memory = machine, machine.allocate(device, nbytes)

    def __del__(self) -> None:
        if hasattr(self, "memory"):
            self.machine.free(self.memory)


class Local(threading.local):
    """What CUDA and CuPy keep for each thread."""

    def __init__(self) -> None:
        self.device = 0
        self.devices: list[int] = []  # that CuPy's `with Device` goes back to
        self.streams: list[Stream] = []


class Capture(NamedTuple):
    """One that has begun, and not ended."""

    stream: "Stream"
    mode: int
    thread: int

    @property
    def forbids(self) -> bool:
        """Whether the calling thread may make no call that might be unsafe."""
        return self.mode == GLOBAL or (self.mode == THREAD_LOCAL and self.thread == threading.get_ident())


class Machine:
    """The GPUs, what happened to them, and the knobs that make it happen."""

    def __init__(self, gpus: list[Gpu]) -> None:
        self.gpus = gpus
        self.lock, self.local = threading.RLock(), Local()
        self.memories: list[Memory] = []  # by address, with those that were freed
        self.streams: dict[int, Stream] = {}  # by handle
        self.open_captures: list[Capture] = []
        self.touched: set[int] = set()  # GPUs that hold a context of this process
        self.captures = self.graph_launches = self.kernel_launches = self.pageable_copies = 0
        self.broken: list[str] = []  # found where nothing can be raised
        self._failing: tuple[int, int] = (0, 0)  # allocations that succeed before, and how many fail then

    # Knobs

    def fail_allocation(self, after: int = 0, times: int = 1) -> None:
        """Of the allocations on GPUs to come, `after` succeed, then `times` fail."""
        self._failing = after, times

    def lose(self, device: int, after: int | None = None, status: int = 46) -> None:
        """That GPU fails from now on, or when it has run `after` kernels and graphs more."""
        gpu = self.gpus[device]
        gpu.launches_left, gpu.status = after, status
        gpu.failed = status if after is None else None

    def progress(self, count: int | None = None) -> None:
        """Every stream runs that many of its operations, or all, as a GPU does while nobody waits."""
        with self.lock:
            for stream in list(self.streams.values()):
                with suppress(CUDARuntimeError):  # which whoever waits is told
                    stream.run(count=count)

    # What the modules are made of

    def stream(self, handle: int) -> "Stream":
        """That cupy.cuda.Stream.ptr stands for."""
        assert handle, "work on the null stream"
        return self.streams[handle]

    def view(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: Any,
        device: int,
        *,
        stream: "Stream | None" = None,
        write: bool = False,
    ) -> Any:
        """An array at a device pointer, for an operation that runs, on a stream; see `Memory.access`.

        :raises CUDARuntimeError: that GPU has no such memory
        """
        memory = self.find(pointer)
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if memory is None or memory.device != device or pointer + nbytes > memory.address + memory.nbytes:
            raise CUDARuntimeError(700)
        memory.access(stream, write=write)
        return memory.view(pointer, shape, dtype)

    @property
    def current(self) -> int:
        """The GPU that the calling thread has chosen."""
        return self.local.device

    def choose(self, device: int) -> None:
        """Makes a GPU the thread's current one. :raises CUDARuntimeError: it is not there, or was lost"""
        self.working(device)
        self.touched.add(device)  # choosing a GPU makes a context on it
        self.local.device = device

    def working(self, device: int) -> None:
        """:raises CUDARuntimeError: there is no such GPU, or it was lost"""
        if not self.gpus:
            raise CUDARuntimeError(35)
        if not 0 <= device < len(self.gpus):
            raise CUDARuntimeError(101)
        failed = self.gpus[device].failed
        if failed is not None:
            raise CUDARuntimeError(failed)

    def use(self, device: int | None = None) -> int:
        """Every call that does something on a GPU, which is the current one."""
        current = self.current
        assert device in {None, current}, f"GPU {device} is used while GPU {current} is current"
        self.working(current)
        self.touched.add(current)
        return current

    def interrupt(self) -> None:
        """Every call that might be unsafe while somebody captures: it fails, and so does the capture."""
        with self.lock:
            spoilt = [capture.stream for capture in self.open_captures if capture.forbids]
            spoilt = [stream for stream in spoilt if self.gpus[stream.device_id].failed is None]
            for stream in spoilt:
                stream.invalid = True
        if spoilt:
            raise CUDARuntimeError(900)

    def allocate(self, device: int | None, nbytes: int) -> Memory:
        with self.lock:
            self.interrupt()
            self.use(device)
            current = [stream for stream in self.local.streams if stream.device_id == device]
            memory = Memory(device, nbytes, current[-1] if current else None)
            if device is not None:
                self._charge(self.gpus[device], memory.size)
            bisect.insort(self.memories, memory, key=lambda other: other.address)
            return memory

    def _charge(self, gpu: Gpu, size: int) -> None:
        after, times = self._failing
        self._failing = (after - 1, times) if after else (0, max(times - 1, 0))
        if gpu.used + size > gpu.memory or (not after and times):
            raise OutOfMemoryError(size, gpu.used, gpu.memory)
        gpu.used += size

    def free(self, memory: Memory) -> None:
        with self.lock:
            if not memory.intact:
                self.broken.append(f"written beyond {memory.nbytes} bytes that were then freed")
            memory.freed = True
            if memory.stream is not None and memory.stream.queue:
                memory.stream.queue.append(memory.vanish)
            else:
                memory.vanish()
            if memory.device is not None:
                self.gpus[memory.device].used -= memory.size

    def find(self, address: int) -> Memory | None:
        """The memory, freed or not, in which an address lies."""
        at = bisect.bisect_right(self.memories, address, key=lambda memory: memory.address) - 1
        memory = self.memories[at] if at >= 0 else None
        return memory if memory and address < memory.address + max(memory.nbytes, 1) else None

    def check(self) -> None:
        """Nothing was written where it should not be."""
        assert not self.broken, self.broken
        for memory in self.memories:
            assert memory.freed or memory.intact, f"written beyond {memory.nbytes} bytes of GPU {memory.device}"

    def count_launch(self, device: int) -> None:
        """:raises CUDARuntimeError: it is the one with which the GPU is lost"""
        gpu = self.gpus[device]
        if gpu.launches_left == 0:
            raise CUDARuntimeError(gpu.status)
        if gpu.launches_left is not None:
            gpu.launches_left -= 1
