"""An engine on one GPU, for any back end that runs the graph: arrays as they are, and slots for views of images."""

import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Array, Contract, DeviceMemoryError, Slot
from spai_runtime.engines.cuda.crop import crop_kernel
from spai_runtime.engines.cuda.gpu import Gpu, import_cupy
from spai_runtime.engines.cuda.pinned import pinned_pixels
from spai_runtime.engines.cuda.program import Execution, Program, Shape, pair
from spai_runtime.engines.cuda.recording import retried
from spai_runtime.engines.cuda.slot import CudaImage, CudaSlot
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Precision

__all__ = ["CudaEngine", "CudaImage", "CudaSlot", "Gpu"]

SLOTS_KEPT = 4  # two batches in flight of two sizes, so that runs of either in turn record nothing anew


class CudaEngine:
    """An engine on one GPU; see `DeviceEngine`. Any thread may use it.

    :param label: name of the back end, e.g. `TensorRT 11.4.0.106`
    :param batch_size: the number of views in a batch with which it is fastest
    """

    computes: Precision | None = None  # a plan says itself what it computes in
    streams = 1  # for arrays; slots have streams of their own

    def __init__(self, gpu: Gpu, program: Program, contract: Contract, label: str, batch_size: int) -> None:
        self.device, self.label, self.batch_size = gpu.device, f"{label}, {gpu.device}", batch_size
        self._gpu, self._program, self._contract = gpu, program, contract
        self._lock = threading.RLock()  # of what follows: slots are their batcher's own
        self._free: list[CudaSlot] = []
        self._closed = False
        with gpu:
            self._kernel = crop_kernel() if contract.input.dtype == "uint8" else None
            self._execution = program.execution(import_cupy().cuda.Stream(non_blocking=True))

    @property
    def as_device_engine(self) -> "CudaEngine":
        """See `Engine`."""
        return self

    @property
    def replicas(self) -> Sequence["CudaEngine"]:
        return (self,)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `DeviceEngine`."""
        return pinned_pixels(self._gpu, shape)

    def run(self, batch: Array) -> list[Array]:
        """See `Engine`. :raises EngineError: see `run_all`"""
        return self.run_all([batch])[0]

    @retried
    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """See `Engine`. A batch that has more rows than the graph takes is split into parts.

        :raises EngineError: another axis is longer than the graph takes; nothing was run then
        """
        for batch in batches:
            self._check(batch.shape[1:], first=1)
        with self._lock, self._gpu:
            runs = [[_Run(self._execution, self._contract, part) for part in self._parts(batch)] for batch in batches]
            self._execution.stream.synchronize()
        return [
            [np.concatenate(parts) for parts in zip(*(run.outputs for run in split), strict=True)] for split in runs
        ]

    def acquire(self, capacity: int) -> Slot:
        """See `DeviceEngine`. :raises EngineError: the graph takes no batch of that size"""
        self._check((capacity,))
        with self._lock:
            for slot in self._free:
                if slot.capacity == capacity:
                    self._free.remove(slot)
                    return slot
            if self._free:  # of another size: they may hold the memory that this one needs
                with suppress(DeviceMemoryError):
                    return self._new_slot(capacity)
                self.free_unused()
            return self._new_slot(capacity)

    def release(self, slot: Slot) -> None:
        """See `DeviceEngine`."""
        assert isinstance(slot, CudaSlot)
        with self._lock:
            if slot.unfinished or self._closed:
                slot.close()
                return
            self._free.append(slot)
            for oldest in self._free[:-SLOTS_KEPT]:
                self._free.remove(oldest)
                oldest.close()

    def free_unused(self) -> None:
        """See `DeviceEngine`."""
        with self._lock:
            while self._free:
                self._free.pop().close()
            with suppress(EngineError), self._gpu:
                self._gpu.free_unused()

    def discard(self, device: str) -> None:
        """See `DeviceEngine`: this is the last GPU, so it stays."""

    def close(self) -> None:
        """See `Engine`. Closing it again does nothing."""
        with self._lock:
            self.free_unused()
            if self._closed:
                return
            self._closed = True
            with suppress(EngineError), self._gpu:
                del self._execution
                self._program.close()
                self._gpu.free_unused()

    @retried
    def _new_slot(self, capacity: int) -> CudaSlot:
        with self._gpu:
            self._gpu.free_unused()
        return CudaSlot(self._gpu, self._program, self._contract, self._kernel, capacity)

    def _parts(self, batch: Array) -> list[Array]:
        most = self._program.largest[0] or len(batch)
        return [batch[start : start + most] for start in range(0, len(batch), most)]

    def _check(self, sizes: Sequence[int], first: int = 0) -> None:
        """Check the sizes of the input's axes. :param sizes: those of the axes from `first` on"""
        names, limits = self._contract.input.shape[first:], self._program.largest[first:]
        for name, size, limit in zip(names, sizes, limits, strict=False):
            if limit is not None and size > limit:
                todo = "crop the image, or give --engine head.onnx" if first else f"give --batch-size {limit}"
                raise EngineError(
                    f"{size} {name} at once are more than the {limit} that the plan was built for: {todo}"
                )


class _Run:
    """One run of the graph on an array, with all its steps queued.

    :param outputs: arrays on the host, valid once the stream has finished
    """

    def __init__(self, execution: Execution, contract: Contract, batch: Array) -> None:
        shape: Shape = batch.shape
        stream = execution.stream
        with stream:
            self._source = import_cupy().empty(shape, batch.dtype)
        self._source.set(np.ascontiguousarray(batch), stream=stream)
        pairs = [pair(wanted, np.float32, stream) for wanted in contract.output_shapes(shape)]
        execution.enqueue(shape, self._source.data.ptr, [target.data.ptr for target, _ in pairs])
        for target, host in pairs:
            target.get(stream=stream, out=host, blocking=False)
        self._targets, self.outputs = [target for target, _ in pairs], [host for _, host in pairs]
