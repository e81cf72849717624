"""Slots and arrays on a GPU that runs nothing before somebody waits, so that a missing wait shows."""

import gc
import sys
import threading
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime.engines.base import (
    Contract,
    Crop,
    DeviceBusyError,
    DeviceLostError,
    DeviceMemoryError,
    Slot,
    Tensor,
)
from spai_runtime.engines.cuda import recording
from spai_runtime.engines.cuda.engine import CudaEngine, CudaSlot, Gpu
from spai_runtime.engines.cuda.recording import RECORDINGS
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.views import Tiles
from tests.gpu.fakes import fake_cupy
from tests.gpu.fakes.fake_streams import Stream
from tests.support.images import pixels
from tests.support.loading import crops_of
from tests.support.programs import SumsExecution, SumsProgram, summed

SIDE = 8
ENCODER = Contract.encoder((SIDE, SIDE), 3)
LENGTHS = Contract(
    Tensor("features", "float32", ("images", "views", 2)), (Tensor("sum", "float32", ("images", "views")),)
)
POLICY = Tiles(SIDE, SIDE, 4)

Image = NDArray[np.uint8]


Start = Callable[..., CudaEngine]


@pytest.fixture(params=[False, True], ids=["a stream each", "one stream"])
def start(machine: Any, request: pytest.FixtureRequest) -> Start:
    def engine(
        contract: Contract = ENCODER, device: str = "cuda:0", largest: Sequence[int | None] = (None,) * 4
    ) -> Any:
        gpu = Gpu.find(device)
        with gpu:
            program = SumsProgram(machine, largest, own=request.param)
        made = CudaEngine(gpu, program, contract, "Sums 1.0", 4)
        made.program = program  # type: ignore[attr-defined]
        return made

    return engine


def views_of(slot: Slot, image: Image) -> list[Crop]:
    """All views of an image, sent up through that slot."""
    return crops_of(slot.upload(image), POLICY.layout(*image.shape[:2]))


def expected(*images: Image) -> NDArray[np.float32]:
    stacks = [POLICY.layout(*image.shape[:2]).stack(Picture.from_array(image)) for image in images]
    return summed(np.concatenate(stacks))


def pinned(image: Image) -> Image:
    """The same in pinned memory, which the GPU reads when it gets there."""
    import cupyx  # noqa: PLC0415  the fake

    copy = cupyx.empty_pinned(image.shape, np.uint8)
    copy[...] = image
    return copy


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_slots_features_are_those_of_the_host(start: Start, machine: Any, device: str) -> None:
    engine = start(device=device)
    images = pixels(20, 17, 0), pixels(3, 9, 1), pixels(8, 8, 2)
    slot = engine.acquire(16)
    crops = [crop for image in images for crop in views_of(slot, pinned(image))]
    for _ in range(3):
        slot.launch(crops, 16)
        np.testing.assert_array_equal(slot.wait(), expected(*images))
    assert engine.program.shapes == [(16, SIDE, SIDE, 3)] * 3
    assert (slot.device, slot.capacity) == (device, 16)
    assert machine.touched == {int(device[-1])} | {0}  # a thread's first GPU is 0
    machine.check()


def test_nothing_is_waited_for_until_it_must_be(start: Start, machine: Any) -> None:
    slot = start().acquire(8)
    image = pixels(20, 17)
    machine.pageable_copies = 0
    slot.launch(views_of(slot, pinned(image)), 8)
    assert not slot.done()
    assert machine.pageable_copies == 0
    machine.progress()
    assert slot.done()
    np.testing.assert_array_equal(slot.wait(), expected(image))


def test_images_live_until_they_are_read(start: Start) -> None:
    """Whoever launched may forget them, and the pinned pixels that they come from."""
    first, second = (start().acquire(8) for _ in range(2))
    image = pixels(20, 17)
    first.launch(views_of(first, pinned(image)), 8)
    gc.collect()
    second.launch(views_of(second, pinned(pixels(20, 17, 1))), 8)
    np.testing.assert_array_equal(first.wait(), expected(image))


def test_an_image_serves_every_slot(start: Start) -> None:
    """Slots whose streams have nothing in common but the image."""
    engine = start()
    slots = [engine.acquire(4) for _ in range(3)]
    image = pixels(17, 16)
    crops = views_of(slots[0], pinned(image))
    for slot in slots[1:]:
        slot.launch(crops, 4)
    for slot in slots[1:]:
        np.testing.assert_array_equal(slot.wait(), expected(image))


def test_slots_take_turns(start: Start) -> None:
    engine = start()
    slots = [engine.acquire(4) for _ in range(2)]
    images = [pixels(16, 16 + count, count) for count in range(6)]
    running: list[tuple[Slot, Image]] = []
    for number, image in enumerate(images):
        slot = slots[number % 2]
        if len(running) == 2:
            np.testing.assert_array_equal(running[0][0].wait(), expected(running.pop(0)[1]))
        slot.launch(views_of(slot, pinned(image)), 4)
        running.append((slot, image))
    for slot, image in running:
        np.testing.assert_array_equal(slot.wait(), expected(image))


@pytest.mark.parametrize("bucket", [1, 2, 4, 8])
def test_a_bucket_is_run_whole(start: Start, bucket: int) -> None:
    engine = start()
    slot = engine.acquire(8)
    image = pixels(16, 32)
    for count in range(1, bucket + 1):
        slot.launch(views_of(slot, image)[:count], bucket)
        np.testing.assert_array_equal(slot.wait(), expected(image)[:count])
    assert set(engine.program.shapes) == {(bucket, SIDE, SIDE, 3)}


def test_a_slot_is_prepared_when_it_is_made_and_used_again(start: Start) -> None:
    engine = start()
    slot = engine.acquire(4)
    assert engine.program.prepared == [(4, SIDE, SIDE, 3)]
    engine.release(slot)
    assert engine.acquire(4) is slot
    assert engine.acquire(4) is not slot
    assert engine.acquire(2).capacity == 2
    assert engine.program.prepared == [(size, SIDE, SIDE, 3) for size in (4, 4, 2)]


def test_a_slot_that_was_not_waited_for_is_not_used_again(start: Start) -> None:
    engine = start()
    slot = engine.acquire(4)
    slot.launch(views_of(slot, pinned(pixels(16, 16))), 4)
    engine.release(slot)
    assert engine.acquire(4) is not slot


def test_a_slot_is_no_larger_than_the_graph(start: Start) -> None:
    engine = start(largest=(4, None, None, None))
    with pytest.raises(
        EngineError, match="5 views at once are more than the 4 that the plan was built for: give --batch"
    ):
        engine.acquire(5)
    assert engine.acquire(4).capacity == 4


def test_closing_gives_all_memory_back(start: Start, machine: Any) -> None:
    engine = start()
    slots = [engine.acquire(4) for _ in range(2)]
    slots[0].launch(views_of(slots[0], pixels(16, 16)), 4)
    for slot in slots:
        engine.release(slot)
    engine.run(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    assert machine.gpus[0].used > 0
    engine.close()
    gc.collect()
    assert machine.gpus[0].used == 0
    assert engine.program.closed
    machine.check()


@pytest.mark.parametrize("lost", [False, True])
def test_closing_again_does_nothing(start: Start, machine: Any, lost: bool) -> None:
    engine = start()
    slots = [engine.acquire(4) for _ in range(3)]
    engine.release(slots[0])
    if lost:
        machine.lose(0)
    for _ in range(2):
        slots[1].close()
    for _ in range(2):
        engine.close()
    engine.release(slots[2])  # late: nobody would take it any more
    machine.gpus[0].failed = None
    used = machine.gpus[0].used
    del slots, engine
    gc.collect()
    assert machine.gpus[0].used == 0
    assert lost or used == 0
    machine.check()


def test_memory_that_does_not_suffice(start: Start, machine: Any) -> None:
    engine = start()
    machine.fail_allocation(times=9)
    with pytest.raises(
        DeviceMemoryError, match="cuda:0 has too little memory, give a smaller --batch-size: Out of mem"
    ):
        engine.acquire(4)
    machine.fail_allocation(times=0)
    used = machine.gpus[0].used
    slot = engine.acquire(4)
    machine.fail_allocation()
    with pytest.raises(DeviceMemoryError):
        slot.upload(pixels(9, 9))
    np.testing.assert_array_equal(launched(slot, pixels(16, 16)), expected(pixels(16, 16)))
    engine.release(slot)
    engine.close()
    assert machine.gpus[0].used <= used


def test_unused_slots_of_another_size_make_room(start: Start, machine: Any) -> None:
    """Where there is none otherwise."""
    engine = start()
    used = machine.gpus[0].used
    engine.release(engine.acquire(4))
    machine.gpus[0].memory = machine.gpus[0].used
    slot = engine.acquire(2)
    assert slot.capacity == 2
    assert used < machine.gpus[0].used < machine.gpus[0].memory
    with pytest.raises(DeviceMemoryError):
        engine.acquire(4)


def test_sizes_in_turn_are_prepared_once(start: Start) -> None:
    engine = start()
    for _ in range(3):
        for size in (4, 8):
            slots = [engine.acquire(size) for _ in range(2)]
            np.testing.assert_array_equal(launched(slots[0], pixels(16, 16)), expected(pixels(16, 16)))
            for slot in slots:
                engine.release(slot)
    assert engine.program.prepared == [(size, SIDE, SIDE, 3) for size in (4, 4, 8, 8)]


def test_few_slots_are_kept(start: Start, machine: Any) -> None:
    """The last that were released."""
    engine = start()
    used = []
    for size in (1, 2, 3, 4, 5, 6):
        engine.release(engine.acquire(size))
        used.append(machine.gpus[0].used)
    assert engine.program.closed_executions == 2
    assert [engine.acquire(size).capacity for size in (3, 4, 5, 6)] == [3, 4, 5, 6]
    assert len(engine.program.prepared) == 6
    engine.acquire(2)
    assert len(engine.program.prepared) == 7


def test_unused_slots_can_be_freed(start: Start, machine: Any) -> None:
    engine = start()
    used = machine.gpus[0].used
    engine.release(engine.acquire(4))
    engine.free_unused()
    assert machine.gpus[0].used == used


def test_a_failed_launch_is_made_good_by_the_next(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after too little memory for a bucket, when a smaller one follows in the same slot."""
    slot = start().acquire(4)
    image = pixels(16, 16)

    def full(*_: object) -> None:
        raise DeviceMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(SumsExecution, "enqueue", full)
        with pytest.raises(DeviceMemoryError):
            slot.launch(views_of(slot, pinned(pixels(16, 16, 1))), 4)
    slot.launch(views_of(slot, pinned(image))[:2], 2)
    np.testing.assert_array_equal(slot.wait(), expected(image)[:2])


@pytest.mark.parametrize("after", [None, 0, 1])
def test_a_gpu_that_is_lost(start: Start, machine: Any, after: int | None) -> None:
    """At once, at the cropping kernel, at the graph."""
    engine = start(device="cuda:1")
    slot = engine.acquire(4)
    image = pinned(pixels(16, 16))
    machine.lose(1, after)
    with pytest.raises(DeviceLostError, match="cuda:1 stopped working: cudaError") as caught:
        launched(slot, image)
    assert caught.value.device == "cuda:1"
    engine.discard("cuda:1")
    engine.release(slot)
    engine.close()
    with pytest.raises(DeviceLostError):
        start(device="cuda:1")
    np.testing.assert_array_equal(launched(start().acquire(4), image), expected(image))  # the other goes on


def launched(slot: Slot, image: Image) -> NDArray[np.float32]:
    slot.launch(views_of(slot, image), slot.capacity)
    return slot.wait()


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_arrays_are_run_in_parts_that_the_graph_takes(start: Start, count: int) -> None:
    engine = start(largest=(4, None, None, None))
    batch = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    (found,) = engine.run(batch)
    np.testing.assert_array_equal(found, summed(batch))
    assert [shape[0] for shape in engine.program.shapes] == [min(4, count - done) for done in range(0, count, 4)]


def test_many_arrays_are_waited_for_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(LENGTHS, largest=(None, 9, None))
    waits, wait = [], Stream.synchronize
    monkeypatch.setattr(Stream, "synchronize", lambda stream: (waits.append(len(engine.program.shapes)), wait(stream)))
    generator = np.random.default_rng(0)
    batches = [generator.normal(size=(1 + views % 2, views, 2)).astype(np.float32) for views in (3, 9, 1, 4)]
    for found, batch in zip(engine.run_all(batches), batches, strict=True):
        assert len(found) == 1
        np.testing.assert_array_equal(found[0], summed(batch))
    assert waits == [4]
    assert engine.run_all([]) == []


def test_an_axis_that_is_too_long(start: Start) -> None:
    """Nothing is run then: who calls can run the others."""
    engine = start(LENGTHS, largest=(None, 9, None))
    fine = np.zeros((1, 9, 2), np.float32)
    with pytest.raises(
        EngineError, match="10 views at once are more than the 9 that the plan was built for: crop the im"
    ):
        engine.run_all([fine, np.zeros((1, 10, 2), np.float32)])
    assert engine.program.shapes == []
    assert engine.run(fine)[0].shape == (1, 9)


def test_arrays_of_any_layout(start: Start) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 6), np.uint8)[::-1, :, :, ::2]
    np.testing.assert_array_equal(start().run(batch)[0], summed(batch))


def test_two_threads(start: Start) -> None:
    """Each with a slot of its own, and arrays in between."""
    engine = start()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            slot = engine.acquire(4)
            for number in range(10):
                image = pixels(16, 16, 10 * seed + number)
                slot.launch(views_of(slot, pinned(image)), 4)
                views = np.full((2, SIDE, SIDE, 3), number, np.uint8)
                np.testing.assert_array_equal(engine.run(views)[0], summed(views))
                np.testing.assert_array_equal(slot.wait(), expected(image))
            engine.release(slot)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_it_is_a_device_engine(start: Start) -> None:
    engine = start(device="cuda:1")
    assert engine.as_device_engine is engine
    assert engine.replicas == (engine,)
    assert (engine.device, engine.label, engine.batch_size) == ("cuda:1", "Sums 1.0, cuda:1", 4)
    assert isinstance(engine.acquire(2), CudaSlot)


def test_what_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, gpus=2, capability=(12, 0), name="NVIDIA RTX 5090")
    assert Gpu.find("cuda:1") == Gpu(1, "NVIDIA RTX 5090", "12.0")
    assert Gpu.find("cuda").device == "cuda:0"


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (2, "cuda:3", "there is no cuda:3: this machine has 2 GPUs$"),
        (1, "cuda:1", "there is no cuda:1: this machine has 1 GPU$"),
        (1, "cuda:0,1", "one GPU is wanted, such as cuda:0, and not cuda:0,1"),
        (1, "cpu", "one GPU is wanted, such as cuda:0, and not cpu"),
        (0, "cuda:0", r"no GPU can be used \(cudaErrorInsufficientDriver: .*\); check that there is one"),
    ],
)
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, message: str) -> None:
    fake_cupy.install(monkeypatch, gpus=gpus)
    with pytest.raises(EngineError, match=message):
        Gpu.find(device)


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(EngineError, match=r"CuPy is not installed: pip install '\.\[gpu\]'"):
        Gpu.find("cuda:0")


def test_a_cupy_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, for another CUDA or without its libraries."""
    cause = "ImportError('libnvrtc.so.13: cannot open\\nmore')"
    (tmp_path / "cupy.py").write_text(f"raise ImportError('\\n====\\nFailed to import CuPy.\\n') from {cause}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(
        EngineError, match=r"CuPy cannot be imported \(libnvrtc\.so\.13: cannot open\): pip install '\.\[gpu\]'"
    ):
        Gpu.find("cuda:0")


def test_a_gpu_is_current_within_and_no_longer(machine: Any) -> None:
    first, second = Gpu.find("cuda:0"), Gpu.find("cuda:1")
    with second:
        with first, second:
            assert machine.current == 1
        assert machine.current == 1
        with pytest.raises(ZeroDivisionError), first:
            1 / 0  # noqa: B018  other errors pass as they are
        assert machine.current == 1
    assert machine.current == 0


def test_where_a_gpu_was_lost_a_thread_goes_back_to_where_it_was(machine: Any) -> None:
    first, second = Gpu.find("cuda:0"), Gpu.find("cuda:1")
    machine.lose(1)
    with first:
        for _ in range(2):
            with pytest.raises(DeviceLostError, match="cuda:1 stopped working"), second:
                pass
        assert machine.current == 0
    machine.gpus[1].failed = None
    with second:
        machine.lose(0)
        with pytest.raises(DeviceLostError, match="cuda:0 stopped working"), first:
            pass
        assert machine.current == 1
    RECORDINGS.enter()
    with RECORDINGS.alone():  # nobody is within any more, or this would wait for ever
        pass
    RECORDINGS.leave()


RUNTIME_AND_DRIVER = pytest.mark.parametrize("origin", ["runtime.CUDARuntimeError", "driver.CUDADriverError"])


@RUNTIME_AND_DRIVER
@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (2, DeviceMemoryError, "cuda:0 has too little memory, give a smaller --batch-size: .*out of memory"),
        (46, DeviceLostError, "cuda:0 stopped working: .*busy or unavailable"),
        (700, DeviceLostError, "cuda:0 stopped working: .*an illegal memory access"),
        (900, DeviceBusyError, "cuda:0 refuses what is asked .*: let no other part of this program record"),
        (901, DeviceBusyError, "while a CUDA graph is recorded .*previous error during capture"),
        (907, DeviceBusyError, "last recorded in a capturing stream"),
    ],
)
def test_what_goes_wrong_in_cuda(cupy: Any, origin: str, status: int, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message) as caught, Gpu.find("cuda:0"):
        raise attrgetter(origin)(cupy.cuda)(status)
    assert type(caught.value) is kind


def test_a_kernel_that_cannot_be_launched(start: Start, machine: Any) -> None:
    """Kernels are launched by the driver, whose errors are its own."""
    engine = start()
    slot, image = engine.acquire(4), pinned(pixels(16, 16))
    assert isinstance(slot, CudaSlot)
    crops, kernel = views_of(slot, image), slot._kernel

    def lost(*args: Any) -> None:
        machine.lose(0)
        kernel(*args)

    slot._kernel = lost
    with pytest.raises(DeviceLostError, match="cuda:0 stopped working: CUDA_ERROR_46"):
        slot.launch(crops, 4)


def test_somebody_else_who_records_delays_and_breaks_nothing(
    start: Start, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another library in the process, that knows of no lock: every call that it spoils is made again."""
    captured: list[Any] = []

    def begin() -> None:
        captured.append(cupy.cuda.Stream(non_blocking=True))
        captured[-1].begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)

    def end(_: float) -> None:
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="CaptureInvalidated"):
            captured[-1].end_capture()

    monkeypatch.setattr(recording.time, "sleep", end)
    engine, image = start(), pinned(pixels(16, 16))
    begin()
    slot = engine.acquire(4)
    begin()
    crops = views_of(slot, image)
    slot.launch(crops, 4)
    begin()
    assert not slot.done()
    np.testing.assert_array_equal(slot.wait(), expected(image))
    begin()
    views = np.full((2, SIDE, SIDE, 3), 7, np.uint8)
    np.testing.assert_array_equal(engine.run(views)[0], summed(views))
    assert len(captured) == 4
