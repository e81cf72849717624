"""Batches on GPUs, which take whole images and cut the views themselves: several in flight, none lost with its GPU.

What the host knows of a batch is the list of its views, so a batch that fails is made good by putting its views back
among those that wait. Batches run at one size, the last one too: at one size a view's features are the same to the
last digit, whatever its neighbours, and an interrupted run resumes to the same rows.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines import DeviceEngine, DeviceLostError, DeviceMemoryError, buckets
from spai_runtime.engines.cuda.jpeg import JpegDecoder
from spai_runtime.engines.cuda.pinned import pinned_pixels
from spai_runtime.errors import EngineError
from spai_runtime.scoring.batcher import Batcher, Job
from spai_runtime.scoring.in_flight import BatchInFlight, View

BATCHES_IN_FLIGHT = 2  # a GPU: one runs while the next is prepared

log = logging.getLogger("spai_runtime")


class DeviceBatcher(Batcher):
    """See `Batcher`; `add` waits only where all slots are busy.

    Where memory does not suffice, batches get smaller for good; where a GPU stops working, the others take over.

    :param batch_size: views in a full batch
    :param decoder: of JPEGs, on the GPU; None is Pillow
    :param allocate: a GPU's name and a shape → uint8 memory that it shall fetch pixels from
    :raises DeviceLostError: from any method: no GPU is left, and the jobs that are not done say so
    :raises DeviceMemoryError: from any method: not even one view fits
    """

    def __init__(
        self,
        engine: DeviceEngine,
        batch_size: int,
        decoder: JpegDecoder | None = None,
        allocate: Callable[[str, tuple[int, ...]], NDArray[np.uint8]] = pinned_pixels,
    ) -> None:
        self._engine, self._decoder, self._allocate = engine, decoder, allocate
        self._full_size = self._size = batch_size
        self._open: dict[Job, None] = {}  # that are not done, in the order in which they came
        self._waiting: deque[View] = deque()
        self._running: deque[BatchInFlight] = deque()  # the oldest first
        self._idle: deque[BatchInFlight] = deque()

    def ready(self) -> None:
        """See `Batcher`. Slots record CUDA graphs, which an allocation in a decoding thread would spoil.

        What fails here for want of memory or of a GPU fails once more, and is made good, when it is needed.
        """
        with suppress(DeviceMemoryError, DeviceLostError):
            while home := self._short_of_lanes():
                self._open_lane(home)

    def cost(self, job: Job) -> int:
        """See `Batcher`: while it is prepared, what was decoded and what the GPU shall fetch are there at once."""
        return 3 * job.layout.height * job.layout.width + (job.picture.nbytes if job.picture else 0)

    def prepare(self, job: Job) -> None:
        """See `Batcher`."""
        assert job.picture is not None
        image = self._decoder.decode(job.picture) if self._decoder else None
        if image is not None:
            job.images[image.device] = image
        else:
            job.picture.load()
            job.pixels = self._allocate(self._engine.replicas[0].device, (job.layout.height, job.layout.width, 3))
            job.picture.into(job.pixels)
        job.picture.close()
        job.picture = None

    def add(self, job: Job) -> None:
        """See `Batcher`."""
        assert job.pixels is not None or job.images, "not prepared"
        assert not job.done
        assert job not in self._open
        self._open[job] = None
        self._waiting.extend((job, index) for index in range(len(job.layout)))
        for lane in [lane for lane in self._running if lane.done]:
            if lane in self._running:  # else one before it failed, and all were waited for
                self._receive(lane)
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
        """See `Batcher`; the slots go back to the engine once nothing reads or writes what they hold."""
        for lane in self._running:
            with suppress(DeviceMemoryError, DeviceLostError):
                lane.slot.wait()
        for lane in (*self._running, *self._idle):
            with suppress(EngineError):
                lane.home.release(lane.slot)
        for job in self._open:
            job.drop()
        for held in (self._running, self._idle, self._waiting, self._open):
            held.clear()

    def _launch(self) -> None:
        """Sends off the views that have waited longest. Where something fails, they wait still when it returns."""
        lane = self._free_lane()
        if lane is None:
            return
        assert lane.size == self._size <= lane.slot.capacity
        views = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        with self._mending(lane.device, lane.size, lane):
            lane.launch(views)
            self._running.append(lane)

    def _free_lane(self) -> BatchInFlight | None:
        """One that is idle, or new, or the first to be done; None where that failed, or nothing is left to launch."""
        if not self._idle and (home := self._short_of_lanes()):
            with self._mending(home.device, self._size):
                self._open_lane(home)
        elif not self._idle:
            self._receive(next((lane for lane in self._running if lane.done), self._running[0]))
        return self._idle.popleft() if self._idle and self._waiting else None

    def _open_lane(self, home: DeviceEngine) -> None:
        self._idle.append(BatchInFlight(home, home.acquire(self._size), self._size))

    def _short_of_lanes(self) -> DeviceEngine | None:
        """The GPU with the fewest batches, unless all have their share."""
        counts = Counter(lane.device for lane in (*self._running, *self._idle))
        home = min(self._engine.replicas, key=lambda replica: counts[replica.device])
        return home if counts[home.device] < BATCHES_IN_FLIGHT else None

    def _receive(self, lane: BatchInFlight) -> None:
        """Waits for a batch; a job that has all its features then needs no pixels any more."""
        self._running.remove(lane)
        with self._mending(lane.device, lane.size, lane):
            for job in lane.receive():
                del self._open[job]
                job.drop()
            self._idle.append(lane)

    @contextmanager
    def _mending(self, device: str, size: int, lane: BatchInFlight | None = None) -> Iterator[None]:
        """Makes good what fails inside, on a device, with batches of a size.

        :param lane: which is given up then, and whose views wait again, before all others
        """
        try:
            yield
        except (DeviceLostError, DeviceMemoryError) as error:
            if lane is not None:
                self._waiting.extendleft(reversed(lane.take_back()))
            if isinstance(error, DeviceLostError):
                self._lose(error)
                return
            if lane is not None:
                lane.slot.close()
            self._shrink(device, size, error)

    def _shrink(self, device: str, size: int, error: DeviceMemoryError) -> None:
        """Frees all slots, and goes on with smaller ones, unless batches of that size have been given up already."""
        alone = not (self._running or self._idle)
        self._free_all()
        if size == self._size > 1:
            self._size = buckets(size)[-2]
            batches = "1 view" if self._size == 1 else f"{self._size} views"
            log.warning("%s is out of memory; going on with batches of %s", device, batches)
        elif size == self._size and alone:
            self._blame(device, error)

    def _free_all(self) -> None:
        """What still runs is waited for first."""
        while self._running:
            self._receive(self._running[0])
        while self._idle:
            self._idle.popleft().slot.close()

    def _blame(self, device: str, error: DeviceMemoryError) -> None:
        """Not even one view fits, and nothing else is in its way: it is its image that is too large, or it is hopeless.

        :raises DeviceMemoryError: it is hopeless: there is no room without the image either
        """
        job = self._waiting[0][0]
        for other in self._open:
            if other is job or other.pixels is not None:  # else it was decoded there, and could not be sent again
                other.images.pop(device, None)
        (home,) = (replica for replica in self._engine.replicas if replica.device == device)
        try:
            home.release(home.acquire(1))
        except DeviceMemoryError:
            raise error from None
        except DeviceLostError as lost:
            self._lose(lost)
            return
        job.fail(f"{job.layout.width}×{job.layout.height} pixels do not fit into the memory of {device}; resize it")
        del self._open[job]
        self._waiting = deque(view for view in self._waiting if view[0] is not job)
        self._size = self._full_size  # it was not the batch that was too large

    def _lose(self, lost: DeviceLostError) -> None:
        """Goes on without a GPU. :raises DeviceLostError: it was the last"""
        for lanes in (self._running, self._idle):
            for lane in [lane for lane in lanes if lane.device == lost.device]:
                lanes.remove(lane)
                self._waiting.extendleft(reversed(lane.take_back()))
        for job in self._open:
            job.images.pop(lost.device, None)
        others = [replica.device for replica in self._engine.replicas if replica.device != lost.device]
        if not others:
            self._fail_all(str(lost))
            raise lost
        self._engine.discard(lost.device)
        log.warning("%s; its images go to %s", lost, ", ".join(others))

    def _fail_all(self, error: str) -> None:
        for job in self._open:
            job.fail(error)
        self._open.clear()
        self._waiting.clear()
