"""Batches on GPUs: every view encoded once whatever fails, and nothing held that is no longer needed."""

import logging
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.engines import DeviceEngine, DeviceLostError, DeviceMemoryError
from spai_runtime.images import Picture
from spai_runtime.scoring.batcher import HostBatcher, Job
from spai_runtime.scoring.device_batcher import DeviceBatcher
from spai_runtime.views import Tiles
from tests.gpu.fakes.fake_slots import REASON, FakeGpu, FakeReplicas
from tests.support.engines import Sums
from tests.support.images import pixels

POLICY = Tiles(size=8, stride=8, minimum=4)
SIZES = [(8, 32), (1, 1), (5, 30), (24, 24), (8, 80), (17, 9)]
LOST = f"cuda:0 stopped working: {REASON}"


def allocate(_: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.full(shape, 0xCD, np.uint8)


def batcher(engine: DeviceEngine, batch_size: int = 4) -> DeviceBatcher:
    return DeviceBatcher(engine, batch_size, allocate=allocate)


def jobs(sizes: list[tuple[int, int]] = SIZES) -> list[Job]:
    pictures = [Picture.from_array(pixels(height, width, seed)) for seed, (height, width) in enumerate(sizes)]
    return [Job(picture, POLICY.layout(picture.height, picture.width), 3) for picture in pictures]


def expected(sizes: list[tuple[int, int]] = SIZES) -> Iterator[NDArray[np.float32]]:
    """What the host computes of the same images."""
    for job in jobs(sizes):
        host = HostBatcher(Sums(), POLICY.size, 3)
        host.add(job)
        host.flush()
        yield job.features


def pack(packed: DeviceBatcher, taken: list[Job]) -> None:
    with packed:
        for job in taken:
            packed.prepare(job)
            packed.add(job)
        packed.flush()


def check(taken: list[Job], sizes: list[tuple[int, int]] = SIZES) -> None:
    """Every job has the features of its own image, and nothing else any more."""
    for job, features in zip(taken, expected(sizes), strict=True):
        assert (job.done, job.error, job.missing, job.pixels, job.picture, job.images) == (True, "", 0, None, None, {})
        np.testing.assert_array_equal(job.features, features)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@given(
    sizes=st.lists(st.sampled_from(SIZES), max_size=8),
    batch_size=st.integers(1, 9),
    gpus=st.integers(1, 3),
    fast=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_what_the_host_computes(sizes: list[tuple[int, int]], batch_size: int, gpus: int, fast: bool) -> None:
    cards = [FakeGpu(f"cuda:{index}", fast=fast) for index in range(gpus)]
    taken = jobs(sizes)
    pack(batcher(FakeReplicas(*cards), batch_size), taken)
    check(taken, sizes)
    launched = [bucket for card in cards for bucket in card.launched]
    assert launched == [batch_size] * -(-sum(len(job.layout) for job in taken) // batch_size)
    for card in cards:
        assert not card.taken
        assert len(card.free) <= 2
        assert card.used == len(card.free) * batch_size * card.view_bytes  # no image stays


@given(
    failures=st.dictionaries(
        st.tuples(st.integers(0, 1), st.sampled_from(["acquire", "upload", "launch", "wait"]), st.integers(0, 8)),
        st.sampled_from(["memory", "memory", "lost"]),
        max_size=4,
    ),
    batch_size=st.integers(16, 40),
    calls=st.lists(st.sampled_from(["ready", "add", "advance", "flush"]), max_size=20),
    fast=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_fails(
    failures: dict[tuple[int, str, int], str], batch_size: int, calls: list[str], fast: bool
) -> None:
    """Up to four failures on two GPUs: with as many of memory alone, batches of 16 come down to one view."""
    cards = [FakeGpu(f"cuda:{index}", fast=fast) for index in range(2)]
    for (index, step, count), kind in failures.items():
        cards[index].failing[step, count] = kind
    taken, engine = jobs(SIZES * 2), FakeReplicas(*cards)
    left = iter(taken)
    try:
        with batcher(engine, batch_size) as packed:
            for call in [*calls, *["add"] * len(taken), "flush"]:
                if call == "add" and (job := next(left, None)):
                    packed.prepare(job)
                    packed.add(job)
                elif call == "advance":
                    packed.advance()
                elif call == "ready":
                    packed.ready()
                elif call == "flush":
                    packed.flush()
    except DeviceLostError as lost:
        assert all(card.dead for card in cards)
        added = taken[: len(taken) - len(list(left))]
        for job, features in zip(added, expected(SIZES * 2), strict=False):
            assert job.done
            assert job.error in ("", str(lost))
            assert job.error or (job.features == features).all()
    else:
        check(taken, SIZES * 2)
        assert len(engine.replicas) == 2 - sum(card.dead for card in cards)
    for card in cards:
        assert card.dead or not card.taken


def test_a_batch_is_sent_before_the_last_is_done() -> None:
    gpu = FakeGpu()
    with batcher(gpu) as packed:
        (job,) = jobs([(8, 80)])
        packed.prepare(job)
        packed.add(job)
        assert (gpu.launched, gpu.steps["wait"], job.missing) == ([4, 4], 0, 10)
        packed.flush()
        assert (gpu.launched, gpu.steps["upload"], job.missing) == ([4, 4, 4], 1, 0)


def test_every_gpu_gets_its_batches() -> None:
    cards = FakeGpu("cuda:0"), FakeGpu("cuda:1")
    with batcher(FakeReplicas(*cards)) as packed:
        (job,) = jobs([(8, 8 * 16)])
        packed.prepare(job)
        packed.add(job)
        assert [card.launched for card in cards] == [[4, 4], [4, 4]]
        assert [card.steps["upload"] for card in cards] == [1, 1]  # once a GPU
        packed.flush()


def test_what_is_done_is_taken_without_waiting_for_a_full_batch() -> None:
    gpu = FakeGpu(fast=True)
    with batcher(gpu) as packed:
        first, second = jobs([(8, 32), (1, 1)])
        for job in (first, second):
            packed.prepare(job)
            packed.add(job)
        assert (first.done, gpu.used) == (True, 4 * gpu.view_bytes + 3)  # a slot, and the second image


def test_advance_takes_the_oldest() -> None:
    with batcher(FakeGpu()) as packed:
        first, second = jobs([(8, 32), (8, 32)])
        assert not packed.advance()
        for job in (first, second):
            packed.prepare(job)
            packed.add(job)
        assert packed.advance()
        assert (first.done, second.done) == (True, False)
        assert packed.advance()
        assert second.done
        assert not packed.advance()


def test_pixels_are_held_until_the_image_is_done() -> None:
    held = []
    with batcher(FakeGpu()) as packed:
        first, second = jobs([(5, 30), (1, 1)])
        for job in (first, second):
            decoded = job.picture.nbytes if job.picture else 0
            assert packed.cost(job) == decoded + 3 * job.layout.height * job.layout.width
            packed.prepare(job)
            assert packed.cost(job) == 3 * job.layout.height * job.layout.width
            job.dropped = lambda job=job: held.append(job)
            packed.add(job)
        assert first.pixels is not None
        np.testing.assert_array_equal(first.pixels, pixels(5, 30, 0))
        assert held == []
        packed.flush()
    assert held == [first, second]


def test_what_is_left_when_a_run_ends_early() -> None:
    gpu, held = FakeGpu(), []
    with suppress(RuntimeError), batcher(gpu) as packed:
        (job,) = jobs([(8, 80)])
        packed.prepare(job)
        job.dropped = lambda: held.append(job)
        packed.add(job)
        raise RuntimeError
    assert held == [job]
    assert len(gpu.free) == 2  # waited for: a slot that is not would be refused
    assert gpu.used == 2 * 4 * gpu.view_bytes


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_too_little_memory_halves_the_batch(step: str, caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(failing={(step, 1): "memory"}), jobs()
    pack(batcher(gpu, 6), taken)
    check(taken)
    assert gpu.launched == sorted(gpu.launched, reverse=True)
    assert gpu.launched[-1] == 4
    assert warnings(caplog) == ["cuda:0 is out of memory; going on with batches of 4 views"]


def test_two_batches_that_fail_together_halve_once(caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(failing={("wait", 0): "memory", ("wait", 1): "memory"}), jobs()
    pack(batcher(gpu, 8), taken)
    check(taken)
    assert warnings(caplog) == ["cuda:0 is out of memory; going on with batches of 4 views"]


def test_slots_are_as_large_as_memory_allows(caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(), jobs()
    gpu.memory = 2 * 4 * gpu.view_bytes + 24 * 24 * 3 + 5 * 30 * 3
    pack(batcher(gpu, 32), taken)
    check(taken)
    assert gpu.peak <= gpu.memory
    assert warnings(caplog)[:3] == [
        f"cuda:0 is out of memory; going on with batches of {size} views" for size in (16, 8, 4)
    ]


def test_an_image_that_no_batch_leaves_room_for(caplog: pytest.LogCaptureFixture) -> None:
    """It alone is an error; the batches of the others are full again."""
    sizes = [(8, 32), (80, 80), (24, 24)]
    gpu, taken = FakeGpu(memory=80 * 80 * 3), jobs(sizes)
    pack(batcher(gpu), taken)
    assert taken[1].error == "80×80 pixels do not fit into the memory of cuda:0; resize it"
    assert taken[1].images == {}
    check([taken[0], taken[2]][:1], sizes[:1])
    np.testing.assert_array_equal(taken[2].features, list(expected(sizes))[2])
    assert gpu.launched[-1] == 4
    assert warnings(caplog) == [
        "cuda:0 is out of memory; going on with batches of 2 views",
        "cuda:0 is out of memory; going on with batches of 1 view",
    ]


def test_no_room_for_a_single_view() -> None:
    gpu = FakeGpu()
    gpu.memory = gpu.view_bytes - 1
    with pytest.raises(DeviceMemoryError):
        pack(batcher(gpu), jobs())


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_a_lost_gpu_is_replaced(step: str, caplog: pytest.LogCaptureFixture) -> None:
    cards = FakeGpu("cuda:0", failing={(step, 1): "lost"}), FakeGpu("cuda:1")
    taken, engine = jobs(), FakeReplicas(*cards)
    pack(batcher(engine), taken)
    check(taken)
    assert list(engine.replicas) == [cards[1]]
    assert warnings(caplog) == [f"{LOST}; its images go to cuda:1"]


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_the_last_gpu(step: str) -> None:
    """What was finished before stays finished."""
    gpu, taken = FakeGpu(failing={(step, 1): "lost"}), jobs([(8, 32), *SIZES])
    with pytest.raises(DeviceLostError) as caught, batcher(gpu) as packed:
        for job in taken:
            packed.prepare(job)
            packed.add(job)
            packed.advance()
        packed.flush()
    assert str(caught.value) == LOST
    added = [job for job in taken if job.picture is None]
    assert [job.error for job in added] == [""] * sum(not job.error for job in added) + [LOST] * sum(
        bool(job.error) for job in added
    )
    for job, features in zip(added, expected([(8, 32), *SIZES]), strict=False):
        assert job.error or (job.features == features).all()
    assert added[-1].error
