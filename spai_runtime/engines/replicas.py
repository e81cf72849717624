"""Several GPUs as one engine, with a graph on each; if one GPU stops working, the others go on."""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Array, DeviceEngine, DeviceLostError, Slot
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Precision

log = logging.getLogger("spai_runtime")


class Replicas:
    """Several GPUs as one engine; see `DeviceEngine`. Arrays run on the first GPU; slots belong to its `replicas`.

    :param engines: engines of the same graph, one for each GPU
    """

    computes: Precision | None = None
    streams = 1

    def __init__(self, engines: Sequence[DeviceEngine]) -> None:
        first = engines[0]
        self.device = "cuda:" + ",".join(engine.device.removeprefix("cuda:") for engine in engines)
        self.label = first.label.removesuffix(first.device) + self.device
        self.batch_size = min(engine.batch_size for engine in engines)
        self._live = list(engines)
        self._lock = threading.Lock()  # of that list

    @property
    def as_device_engine(self) -> "Replicas":
        """See `Engine`."""
        return self

    @property
    def replicas(self) -> Sequence[DeviceEngine]:
        return tuple(self._live)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `DeviceEngine`. Memory that one GPU fetches from by itself works for the others too."""
        return self.replicas[0].allocate(shape)

    def run(self, batch: Array) -> list[Array]:
        """See `Engine`."""
        return self.run_all([batch])[0]

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """See `Engine`. :raises DeviceLostError: every GPU stopped working"""
        while True:
            engine = self.replicas[0]
            try:
                return engine.run_all(batches)
            except DeviceLostError as error:
                if not self._discard(engine.device):
                    raise
                log.warning("%s; going on with %s", error, self.replicas[0].device)

    def acquire(self, capacity: int) -> Slot:
        """A slot of the first GPU; to use all GPUs, ask each of the `replicas`."""
        return self.replicas[0].acquire(capacity)

    def release(self, slot: Slot) -> None:
        """See `DeviceEngine`. A slot whose GPU was discarded is forgotten."""
        for engine in self.replicas:
            if engine.device == slot.device:
                engine.release(slot)

    def free_unused(self) -> None:
        """See `DeviceEngine`."""
        for engine in self.replicas:
            engine.free_unused()

    def discard(self, device: str) -> None:
        """See `DeviceEngine`."""
        self._discard(device)

    def close(self) -> None:
        """See `Engine`."""
        for engine in self.replicas:
            engine.close()

    def _discard(self, device: str) -> bool:
        """Discard a GPU. :returns: whether another GPU is left to go on with"""
        with self._lock:
            lost = [engine for engine in self._live if engine.device == device]
            if len(self._live) == 1:
                return not lost
            self._live = [engine for engine in self._live if engine.device != device]
        for engine in lost:
            with suppress(EngineError):
                engine.close()
        return True
