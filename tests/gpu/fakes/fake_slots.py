"""An encoder on GPUs that are NumPy: asynchronous, of limited memory, and failing when it is told to.

Its features of a view are the sums of its channels. Nothing happens before `wait`: pixels are read only then, and until
then features are NaN.
"""

import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Crop, DeviceImage, DeviceLostError, DeviceMemoryError, HostEngine, Slot, buckets
from tests.support.padded import pad

REASON = "it fell off the bus"


class FakeImage:
    """Pixels that arrive when they are looked at."""

    def __init__(self, gpu: "FakeGpu", pixels: NDArray[np.uint8]) -> None:
        gpu.take(pixels.nbytes)
        weakref.finalize(self, gpu.give, pixels.nbytes)
        self.device, self.pixels = gpu.device, pixels
        self.height, self.width, _ = pixels.shape


class FakeSlot:
    """See `Slot`."""

    def __init__(self, gpu: "FakeGpu", capacity: int) -> None:
        gpu.take(capacity * gpu.view_bytes)
        self._free = weakref.finalize(self, gpu.give, capacity * gpu.view_bytes)
        self.device, self.capacity, self.gpu = gpu.device, capacity, gpu
        self.crops: Sequence[Crop] | None = None
        self.failed = False

    def upload(self, pixels: NDArray[np.uint8]) -> DeviceImage:
        self.gpu.step("upload")
        assert pixels.flags.c_contiguous
        return FakeImage(self.gpu, pixels)

    def launch(self, crops: Sequence[Crop], bucket: int) -> None:
        assert self.crops is None and self in self.gpu.taken, "in use, or not acquired"
        assert 0 < len(crops) <= bucket <= self.capacity
        assert bucket in buckets(self.capacity)
        assert all(isinstance(crop.image, FakeImage) and crop.image.device == self.device for crop in crops)
        self.failed = True
        self.gpu.step("launch")
        self.gpu.launched.append(bucket)
        self.features, self.crops, self.failed = np.full((bucket, 3), np.nan, np.float32), crops, False

    def wait(self) -> NDArray[np.float32]:
        assert self.crops is not None, "nothing was launched"
        crops, self.crops, self.failed = self.crops, None, True
        self.gpu.step("wait")
        self.failed = False
        for row, crop in zip(self.features, crops, strict=False):
            row[:] = view(crop, self.gpu.side).sum(axis=(0, 1), dtype=np.float32)
        return self.features[: len(crops)]

    def done(self) -> bool:
        return self.gpu.fast

    def close(self) -> None:
        self.gpu.taken.discard(self)
        self._free()


@dataclass(eq=False)
class FakeGpu(HostEngine):
    """An engine on one of them.

    :param memory: bytes; a slot takes as many as its views
    :param failing: step (`acquire`, `upload`, `launch` or `wait`) and which of them → what it raises
    :param fast: whether batches are done at once
    """

    device: str = "cuda:0"
    side: int = 8
    memory: float = float("inf")
    failing: dict[tuple[str, int], str] = field(default_factory=dict)
    fast: bool = False
    batch_size: int = 4
    used: int = 0
    peak: int = 0
    dead: bool = False
    label: str = "fake"
    launched: list[int] = field(default_factory=list)
    free: list[FakeSlot] = field(default_factory=list)
    taken: set[FakeSlot] = field(default_factory=set)
    steps: Counter[str] = field(default_factory=Counter)

    @property
    def view_bytes(self) -> int:
        return 3 * self.side * self.side

    @property
    def as_device_engine(self) -> "FakeGpu":
        return self

    @property
    def replicas(self) -> "Sequence[FakeGpu]":
        return (self,)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.full(shape, 0xCD, np.uint8)

    def acquire(self, capacity: int) -> Slot:
        self.step("acquire")
        fitting = [slot for slot in self.free if slot.capacity == capacity]
        slot = fitting[0] if fitting else self._new(capacity)
        self.free = [other for other in self.free if other is not slot]
        self.taken.add(slot)
        return slot

    def release(self, slot: Slot) -> None:
        assert isinstance(slot, FakeSlot)
        assert slot.crops is None, "not waited for"
        self.taken.remove(slot)
        if slot.failed:
            slot.close()
        else:
            self.free.append(slot)

    def discard(self, device: str) -> None:
        raise AssertionError(f"{device} is the last")

    def free_unused(self) -> None:
        while self.free:
            self.free.pop().close()

    close = free_unused

    def step(self, name: str) -> None:
        """Fails if this is the one that shall."""
        kind = self.failing.get((name, self.steps[name]))
        self.steps[name] += 1
        self.dead = self.dead or kind == "lost"
        if self.dead:
            raise DeviceLostError(self.device, REASON)
        if kind == "memory":
            raise DeviceMemoryError("no memory")

    def take(self, nbytes: int) -> None:
        if self.used + nbytes > self.memory:
            raise DeviceMemoryError("no memory")
        self.used += nbytes
        self.peak = max(self.peak, self.used)

    def give(self, nbytes: int) -> None:
        self.used -= nbytes

    def _new(self, capacity: int) -> FakeSlot:
        try:
            return FakeSlot(self, capacity)
        except DeviceMemoryError:
            self.free_unused()
            return FakeSlot(self, capacity)


class FakeReplicas(HostEngine):
    """Several GPUs as one engine."""

    label = "fake"

    def __init__(self, *gpus: FakeGpu) -> None:
        self.replicas: Sequence[FakeGpu] = gpus
        self.device, self.batch_size = "cuda:0,1", gpus[0].batch_size
        self.as_device_engine = self  # type: ignore[assignment]
        self.allocate = gpus[0].allocate

    def acquire(self, capacity: int) -> Slot:
        return self.replicas[0].acquire(capacity)

    def release(self, slot: Slot) -> None:
        next(gpu for gpu in self.replicas if gpu.device == slot.device).release(slot)

    def discard(self, device: str) -> None:
        assert len(self.replicas) > 1
        self.replicas = [gpu for gpu in self.replicas if gpu.device != device]

    def free_unused(self) -> None:
        for gpu in self.replicas:
            gpu.free_unused()

    close = free_unused


def view(crop: Crop, side: int) -> NDArray[np.uint8]:
    """(side, side, 3), by NumPy's own padding."""
    image: Any = crop.image
    pixels, top, left = image.pixels, crop.top, crop.left
    before = max(0, -top), max(0, -left)
    after = max(0, top + side - image.height), max(0, left + side - image.width)
    padded = pad(pixels, (*zip(before, after, strict=True),), crop.padding)
    shown = padded[top + before[0] :, left + before[1] :][:side, :side]
    return shown[:, ::-1] if crop.flipped else shown
