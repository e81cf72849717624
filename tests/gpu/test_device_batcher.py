"""Batches on GPUs: every view encoded once whatever fails, and nothing held that is no longer needed."""

import logging
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.engines.base import DeviceLostError, DeviceMemoryError
from spai_runtime.scoring.batcher import HostBatcher
from spai_runtime.scoring.device_batcher import DeviceBatcher
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.views import Tiles
from tests.gpu.fakes.fake_slots import REASON, FakeGpu, FakeReplicas
from tests.support.encodings import encoding
from tests.support.engines import Sums
from tests.support.images import pixels

POLICY = Tiles(size=8, stride=8, minimum=4)
SIZES = [(8, 32), (1, 1), (5, 30), (24, 24), (8, 80), (17, 9)]
LOST = f"cuda:0 stopped working: {REASON}"


def encodings(sizes: list[tuple[int, int]] = SIZES) -> list[Encoding]:
    return [
        encoding(pixels(height, width, seed), POLICY, allocate=FakeGpu().allocate)
        for seed, (height, width) in enumerate(sizes)
    ]


def expected(sizes: list[tuple[int, int]] = SIZES) -> Iterator[NDArray[np.float32]]:
    """What the host computes of the same images."""
    for seed, (height, width) in enumerate(sizes):
        taken, host = encoding(pixels(height, width, seed), POLICY), HostBatcher(Sums(), (8, 8), 3)
        host.add(taken)
        host.flush()
        yield taken.features


def run(batcher: DeviceBatcher, taken: list[Encoding]) -> None:
    with batcher:
        for one in taken:
            batcher.add(one)
        batcher.flush()


def check(taken: list[Encoding], sizes: list[tuple[int, int]] = SIZES) -> None:
    """Every encoding has the features of its own image, and no pixels any more."""
    for one, features in zip(taken, expected(sizes), strict=True):
        assert (one.done, one.error, one.missing, one.plane.held) == (True, "", 0, False)
        np.testing.assert_array_equal(one.features, features)


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
    taken = encodings(sizes)
    run(DeviceBatcher(FakeReplicas(*cards), batch_size), taken)
    check(taken, sizes)
    launched = [bucket for card in cards for bucket in card.launched]
    assert launched == [batch_size] * -(-sum(len(one.layout) for one in taken) // batch_size)
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
    taken, engine = encodings(SIZES * 2), FakeReplicas(*cards)
    left = iter(taken)
    try:
        with DeviceBatcher(engine, batch_size) as batcher:
            for call in [*calls, *["add"] * len(taken), "flush"]:
                if call == "add" and (one := next(left, None)):
                    batcher.add(one)
                elif call == "advance":
                    batcher.advance()
                elif call == "ready":
                    batcher.ready()
                elif call == "flush":
                    batcher.flush()
    except DeviceLostError as lost:
        assert all(card.dead for card in cards)
        added = taken[: len(taken) - len(list(left))]
        for one, features in zip(added, expected(SIZES * 2), strict=False):
            assert one.done
            assert one.error in ("", str(lost))
            assert one.error or (one.features == features).all()
    else:
        check(taken, SIZES * 2)
        left_over = 2 - sum(card.dead for card in cards)  # what `ready` loses is only missed when it is needed
        assert len(engine.replicas) == left_over or "ready" in calls
    for card in cards:
        assert card.dead or not card.taken


def test_a_batch_is_sent_before_the_last_is_done() -> None:
    gpu = FakeGpu()
    with DeviceBatcher(gpu, 4) as batcher:
        (one,) = encodings([(8, 80)])
        batcher.add(one)
        assert (gpu.launched, gpu.steps["wait"], one.missing) == ([4, 4], 0, 10)
        batcher.flush()
        assert (gpu.launched, gpu.steps["upload"], one.missing) == ([4, 4, 4], 1, 0)


def test_every_gpu_gets_its_batches() -> None:
    cards = FakeGpu("cuda:0"), FakeGpu("cuda:1")
    with DeviceBatcher(FakeReplicas(*cards), 4) as batcher:
        (one,) = encodings([(8, 8 * 16)])
        batcher.add(one)
        assert [card.launched for card in cards] == [[4, 4], [4, 4]]
        assert [card.steps["upload"] for card in cards] == [1, 1]  # once a GPU
        batcher.flush()


def test_what_is_done_is_taken_without_waiting_for_a_full_batch() -> None:
    gpu = FakeGpu(fast=True)
    with DeviceBatcher(gpu, 4) as batcher:
        first, second = encodings([(8, 32), (1, 1)])
        for one in (first, second):
            batcher.add(one)
        assert (first.done, gpu.used) == (True, 4 * gpu.view_bytes + 3)  # a slot, and the second image


def test_advance_takes_the_oldest() -> None:
    with DeviceBatcher(FakeGpu(), 4) as batcher:
        first, second = encodings([(8, 32), (8, 32)])
        assert not batcher.advance()
        for one in (first, second):
            batcher.add(one)
        assert batcher.advance()
        assert (first.done, second.done) == (True, False)
        assert batcher.advance()
        assert second.done
        assert not batcher.advance()


def test_pixels_are_held_until_the_image_is_done() -> None:
    with DeviceBatcher(FakeGpu(), 4) as batcher:
        first, second = encodings([(5, 30), (1, 1)])
        for one in (first, second):
            assert one.plane.nbytes == 3 * one.layout.height * one.layout.width
            batcher.add(one)
        assert first.plane.pixels is not None
        np.testing.assert_array_equal(first.plane.pixels, pixels(5, 30, 0))
        assert (first.plane.held, second.plane.held) == (True, True)
        batcher.flush()
        assert (first.plane.held, second.plane.held) == (False, False)


def test_an_image_that_two_detectors_look_at_goes_up_once_and_stays_until_both_are_done() -> None:
    gpu, image = FakeGpu(), pixels(8, 32)
    first = encoding(image, POLICY, allocate=gpu.allocate)
    plane = first.image.use(None, 8, 32, gpu.allocate)
    second = Encoding(first.image, plane, first.layout, 3)
    with DeviceBatcher(gpu, 4) as one, DeviceBatcher(gpu, 4) as other:
        one.add(first)
        other.add(second)
        one.flush()
        assert (first.done, plane.held, gpu.steps["upload"]) == (True, True, 1)
        other.flush()
        assert (second.done, plane.held, gpu.steps["upload"]) == (True, False, 1)
    np.testing.assert_array_equal(first.features, second.features)


def test_what_is_left_when_a_run_ends_early() -> None:
    gpu = FakeGpu()
    with suppress(RuntimeError), DeviceBatcher(gpu, 4) as batcher:
        (one,) = encodings([(8, 80)])
        batcher.add(one)
        raise RuntimeError
    assert not one.plane.held
    assert len(gpu.free) == 2  # waited for: a slot that is not would be refused
    assert gpu.used == 2 * 4 * gpu.view_bytes


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_too_little_memory_halves_the_batch(step: str, caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(failing={(step, 1): "memory"}), encodings()
    run(DeviceBatcher(gpu, 6), taken)
    check(taken)
    assert gpu.launched == sorted(gpu.launched, reverse=True)
    assert gpu.launched[-1] == 4
    assert warnings(caplog) == ["cuda:0 is out of memory; going on with batches of 4 views"]


def test_two_batches_that_fail_together_halve_once(caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(failing={("wait", 0): "memory", ("wait", 1): "memory"}), encodings()
    run(DeviceBatcher(gpu, 8), taken)
    check(taken)
    assert warnings(caplog) == ["cuda:0 is out of memory; going on with batches of 4 views"]


def test_slots_are_as_large_as_memory_allows(caplog: pytest.LogCaptureFixture) -> None:
    gpu, taken = FakeGpu(), encodings()
    gpu.memory = 2 * 4 * gpu.view_bytes + 24 * 24 * 3 + 5 * 30 * 3
    run(DeviceBatcher(gpu, 32), taken)
    check(taken)
    assert gpu.peak <= gpu.memory
    assert warnings(caplog)[:3] == [
        f"cuda:0 is out of memory; going on with batches of {size} views" for size in (16, 8, 4)
    ]


def test_what_an_earlier_run_left_behind_is_freed_before_an_image_is_given_up() -> None:
    gpu, taken = FakeGpu(), encodings([(24, 24)])
    gpu.release(gpu.acquire(3))  # a size that this run does not come to
    gpu.memory = 11 * gpu.view_bytes  # the image and two slots of a view each
    assert gpu.memory == 24 * 24 * 3 + 2 * gpu.view_bytes
    run(DeviceBatcher(gpu, 4), taken)
    check(taken, [(24, 24)])


def test_an_image_that_no_batch_leaves_room_for(caplog: pytest.LogCaptureFixture) -> None:
    """It alone is an error; the batches of the others are full again."""
    sizes = [(8, 32), (80, 80), (24, 24)]
    gpu, taken = FakeGpu(memory=80 * 80 * 3), encodings(sizes)
    run(DeviceBatcher(gpu, 4), taken)
    assert taken[1].error == "80×80 pixels do not fit into the memory of cuda:0; resize it"
    assert not taken[1].plane.held
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
        run(DeviceBatcher(gpu, 4), encodings())


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_a_lost_gpu_is_replaced(step: str, caplog: pytest.LogCaptureFixture) -> None:
    cards = FakeGpu("cuda:0", failing={(step, 1): "lost"}), FakeGpu("cuda:1")
    taken, engine = encodings(), FakeReplicas(*cards)
    run(DeviceBatcher(engine, 4), taken)
    check(taken)
    assert list(engine.replicas) == [cards[1]]
    assert warnings(caplog) == [f"{LOST}; its images go to cuda:1"]


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
def test_the_last_gpu(step: str) -> None:
    """What was finished before stays finished."""
    gpu, taken = FakeGpu(failing={(step, 1): "lost"}), encodings([(8, 32), *SIZES])
    added = []
    with pytest.raises(DeviceLostError) as caught, DeviceBatcher(gpu, 4) as batcher:
        for one in taken:
            added.append(one)
            batcher.add(one)
            batcher.advance()
        batcher.flush()
    assert str(caught.value) == LOST
    assert [one.error for one in added] == [""] * sum(not one.error for one in added) + [LOST] * sum(
        bool(one.error) for one in added
    )
    for one, features in zip(added, expected([(8, 32), *SIZES]), strict=False):
        assert one.error or (one.features == features).all()
    assert added[-1].error
