"""Batches on GPUs that take whole images and crop the views: several run at once, and none is lost with its GPU.

The host knows the list of views of each batch, so if a batch fails, its views are put back among those that wait. All
batches run at one size, the last one too: then a view's features are the same to the last digit, whatever its
neighbours, and an interrupted run resumes to the same rows.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import DeviceEngine, DeviceLostError, DeviceMemoryError, buckets
from spai_runtime.errors import EngineError
from spai_runtime.scoring.batcher import Batcher
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.in_flight import BatchInFlight, View

BATCHES_IN_FLIGHT = 2  # a GPU: one runs while the next is prepared

log = logging.getLogger("spai_runtime")


class DeviceBatcher(Batcher):
    """A batcher for GPUs; see `Batcher`. `add` waits only if all slots are busy.

    If memory runs out, batches stay smaller from then on; if a GPU stops working, the others take over.

    :param batch_size: number of views in a full batch
    :raises DeviceLostError: from any method: no GPU is left; the encodings that are not done have this as their error
    :raises DeviceMemoryError: from any method: not even one view fits
    """

    def __init__(self, engine: DeviceEngine, batch_size: int) -> None:
        self._engine = engine
        self._full_size = self._size = batch_size
        self._open: dict[Encoding, None] = {}  # that are not done, in the order in which they came
        self._waiting: deque[View] = deque()
        self._running: deque[BatchInFlight] = deque()  # the oldest first
        self._idle: deque[BatchInFlight] = deque()

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `Batcher`."""
        return self._engine.allocate(shape)

    def ready(self) -> None:
        """See `Batcher`. Slots record CUDA graphs, which an allocation in a decoding thread would spoil.

        A failure here for lack of memory or of a GPU occurs again when the batches are needed, and is recovered from
        then.
        """
        with suppress(DeviceMemoryError, DeviceLostError):
            while home := self._short_of_batches():
                self._open_batch(home)

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`."""
        assert encoding.plane.pixels is not None or encoding.plane.copies, "not decoded"
        assert not encoding.done
        assert encoding not in self._open
        self._open[encoding] = None
        self._waiting.extend((encoding, index) for index in range(len(encoding.layout)))
        for batch in [batch for batch in self._running if batch.done]:
            if batch in self._running:  # else one before it failed, and all were waited for
                self._receive(batch)
        while len(self._waiting) >= self._size:
            self._launch()

    def advance(self) -> bool:
        """See `Batcher`."""
        if self._running:
            self._receive(self._running[0])
            return True
        return False

    def flush(self) -> None:
        """See `Batcher`."""
        while self._waiting or self.advance():
            if self._waiting:
                self._launch()
        assert not self._open

    def close(self) -> None:
        """See `Batcher`. The slots go back to the engine once nothing reads or writes what they hold."""
        for batch in self._running:
            with suppress(DeviceMemoryError, DeviceLostError):
                batch.slot.wait()
        for batch in (*self._running, *self._idle):
            with suppress(EngineError):
                batch.home.release(batch.slot)
        for encoding in self._open:
            encoding.release()
        for held in (self._running, self._idle, self._waiting, self._open):
            held.clear()

    def _launch(self) -> None:
        """Launch the views that have waited longest; if something fails, they still wait when it returns."""
        batch = self._free_batch()
        if batch is None:
            return
        assert batch.size == self._size <= batch.slot.capacity
        views = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        with self._recovering(batch.device, batch.size, batch):
            batch.launch(views)
            self._running.append(batch)

    def _free_batch(self) -> BatchInFlight | None:
        """A batch that is idle, new, or the first to be done; None if that failed, or if nothing is left to launch."""
        if not self._idle and (home := self._short_of_batches()):
            with self._recovering(home.device, self._size):
                self._open_batch(home)
        elif not self._idle:
            self._receive(next((batch for batch in self._running if batch.done), self._running[0]))
        return self._idle.popleft() if self._idle and self._waiting else None

    def _open_batch(self, home: DeviceEngine) -> None:
        self._idle.append(BatchInFlight(home, home.acquire(self._size), self._size))

    def _short_of_batches(self) -> DeviceEngine | None:
        """The GPU with the fewest batches; None if all have their share."""
        counts = Counter(batch.device for batch in (*self._running, *self._idle))
        home = min(self._engine.replicas, key=lambda replica: counts[replica.device])
        return home if counts[home.device] < BATCHES_IN_FLIGHT else None

    def _receive(self, batch: BatchInFlight) -> None:
        """Wait for a batch; an encoding that then has all its features no longer needs pixels."""
        self._running.remove(batch)
        with self._recovering(batch.device, batch.size, batch):
            for encoding in batch.receive():
                del self._open[encoding]
                encoding.release()
            self._idle.append(batch)

    @contextmanager
    def _recovering(self, device: str, size: int, batch: BatchInFlight | None = None) -> Iterator[None]:
        """Recover from failures inside the block, on this device, with batches of this size.

        :param batch: the batch to give up after a failure; its views then wait again, before all others
        """
        try:
            yield
        except (DeviceLostError, DeviceMemoryError) as error:
            if batch is not None:
                self._waiting.extendleft(reversed(batch.take_back()))
            if isinstance(error, DeviceLostError):
                self._drop_gpu(error)
                return
            if batch is not None:
                batch.slot.close()
            self._shrink(device, size, error)

    def _shrink(self, device: str, size: int, error: DeviceMemoryError) -> None:
        """Free all slots and go on with smaller ones, unless batches of that size have been given up already."""
        alone = not (self._running or self._idle)
        self._free_all()
        if size == self._size > 1:
            self._size = buckets(size)[-2]
            batches = "1 view" if self._size == 1 else f"{self._size} views"
            log.warning("%s is out of memory; going on with batches of %s", device, batches)
        elif size == self._size and alone:
            self._give_up_image(device, error)

    def _free_all(self) -> None:
        """Free all slots, after what still runs was waited for; also the slots that earlier runs have left behind."""
        while self._running:
            self._receive(self._running[0])
        while self._idle:
            self._idle.popleft().slot.close()
        for replica in self._engine.replicas:
            replica.free_unused()

    def _give_up_image(self, device: str, error: DeviceMemoryError) -> None:
        """Give up an image whose single view does not fit, if it is the image that takes the room.

        :raises DeviceMemoryError: there is no room without the image either, so going on is hopeless
        """
        encoding = self._waiting[0][0]
        for other in self._open:
            plane, alone = other.plane, other is encoding and other.plane.users == 1
            if alone or plane.pixels is not None:  # else it was decoded there, and could not be sent again
                plane.copies.pop(device, None)
        (home,) = (replica for replica in self._engine.replicas if replica.device == device)
        try:
            home.release(home.acquire(1))
        except DeviceMemoryError:
            raise error from None
        except DeviceLostError as lost:
            self._drop_gpu(lost)
            return
        size = f"{encoding.layout.width}×{encoding.layout.height} pixels"
        encoding.fail(f"{size} do not fit into the memory of {device}; resize it")
        del self._open[encoding]
        self._waiting = deque(view for view in self._waiting if view[0] is not encoding)
        self._size = self._full_size  # it was not the batch that was too large

    def _drop_gpu(self, lost: DeviceLostError) -> None:
        """Go on without a GPU. :raises DeviceLostError: it was the last one"""
        for batches in (self._running, self._idle):
            for batch in [batch for batch in batches if batch.device == lost.device]:
                batches.remove(batch)
                self._waiting.extendleft(reversed(batch.take_back()))
        for encoding in self._open:
            encoding.plane.copies.pop(lost.device, None)
        others = [replica.device for replica in self._engine.replicas if replica.device != lost.device]
        if not others:
            self._fail_all(str(lost))
            raise lost
        self._engine.discard(lost.device)
        log.warning("%s; its images go to %s", lost, ", ".join(others))

    def _fail_all(self, error: str) -> None:
        for encoding in self._open:
            encoding.fail(error)
        self._open.clear()
        self._waiting.clear()
