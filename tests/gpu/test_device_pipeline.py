"""The pipeline around an encoder on GPUs: the host's results, in order, in bounded memory, whatever stops working."""

import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime import EngineError, Result
from spai_runtime.engines.base import Array, DeviceLostError
from spai_runtime.engines.replicas import Replicas
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import open_file, score_items
from tests.gpu.fakes.fake_slots import REASON, FakeGpu, FakeReplicas
from tests.support.detectors import detector, summary
from tests.support.engines import Mean, Sums
from tests.support.images import Write, pixels
from tests.support.programs import cuda_engine
from tests.support.scoring import SIZES, decoding, in_time, items, stops_after

HUGE = (300, 301)
LOST = f"cuda:0 stopped working: {REASON}"


def gpu(**options: Any) -> FakeGpu:
    return FakeGpu(side=32, **options)


class Watch:
    """Pixels that wait for a GPU, in bytes: now and at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live = self.peak = 0
        copy_into = Picture.copy_into

        def watched(picture: Picture, out: NDArray[np.uint8]) -> None:
            self.live += out.nbytes
            self.peak = max(self.peak, self.live)
            weakref.finalize(out, self.drop, out.nbytes)
            copy_into(picture, out)

        monkeypatch.setattr(Picture, "copy_into", watched)

    def drop(self, nbytes: int) -> None:
        self.live -= nbytes


@pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
@pytest.mark.parametrize("workers", [1, 5])
def test_results_are_the_hosts(tmp_path: Path, batch_size: int, workers: int) -> None:
    wanted = items(tmp_path, SIZES)
    found = list(score_items(detector(gpu()), wanted, batch_size=batch_size, workers=workers))
    assert summary(found) == summary(list(score_items(detector(Sums()), wanted)))
    assert decoding() == []


@given(
    sizes=st.lists(st.sampled_from([(1, 1), (8, 40), (64, 64), HUGE]), max_size=12),
    budget=st.sampled_from([1, 3 * 7 * 64 * 64, 1 << 20]),
    batch_size=st.sampled_from([1, 7, 1000]),
    workers=st.integers(1, 6),
    fast=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_deadlock(
    tmp_path: Path, sizes: list[tuple[int, int]], budget: int, batch_size: int, workers: int, fast: bool
) -> None:
    """Batches hold the pixels that decoders wait for, and would wait for views that the decoders hold."""
    wanted, results = items(tmp_path, sizes), list[Result]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spai_runtime.scoring.pipeline.GPU_PIXEL_BYTES", budget)
        watch = Watch(patch)
        scored = score_items(detector(gpu(fast=fast)), wanted, batch_size=batch_size, workers=workers)
        in_time(lambda: results.extend(scored))
    assert summary(results) == summary(list(score_items(detector(Sums()), wanted)))
    assert watch.peak <= max([budget, *(3 * height * width for height, width in sizes)])
    assert watch.live == 0


@pytest.mark.parametrize("batch_size", [2 * 9, 5 * 9])
def test_batches_are_full_though_decoders_starve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Room is made by batches that run, before one is sent off that is not full."""
    room = 7 * 64 * 64 + 4 * 3 * 64 * 64  # one that is decoded, and four that were
    monkeypatch.setattr("spai_runtime.scoring.pipeline.GPU_PIXEL_BYTES", room)
    encoder = gpu()
    results = list(score_items(detector(encoder), items(tmp_path, [(64, 64)] * 40), batch_size=batch_size, workers=3))
    assert len(results) == 40
    assert encoder.launched == [batch_size] * (40 * 9 // batch_size)


def test_an_image_above_the_budget_goes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spai_runtime.scoring.pipeline.GPU_PIXEL_BYTES", 3 * 7 * 64 * 64)
    watch, large = Watch(monkeypatch), 3 * HUGE[0] * HUGE[1]
    wanted = items(tmp_path, [(64, 64)] * 8 + [HUGE] + [(64, 64)] * 8)
    in_time(lambda: list(score_items(detector(gpu()), wanted, workers=4)).clear())
    assert (watch.peak, watch.live) == (large, 0)


def test_slots_are_there_before_anything_is_decoded(tmp_path: Path) -> None:
    """An allocation in a decoding thread would spoil the CUDA graphs that they record."""
    encoder, seen = gpu(), []

    def opened(item: Item) -> Picture:
        seen.append(len(encoder.taken))
        return open_file(item)

    list(score_items(detector(encoder), items(tmp_path, SIZES), workers=4, open_item=opened))
    assert set(seen) == {2}


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_consumer_that_stops_early(tmp_path: Path, after: int) -> None:
    encoder = gpu()
    results = score_items(detector(encoder), items(tmp_path, SIZES), workers=4)
    stops_after(after, results)
    assert not encoder.taken
    assert encoder.used == len(encoder.free) * 4 * encoder.view_bytes


@pytest.mark.parametrize("step", ["acquire", "upload", "launch", "wait"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_last_gpu(tmp_path: Path, step: str, count: int) -> None:
    """What was finished, then what was lost, in order; and what was not yet on the GPU is still to do."""
    wanted = items(tmp_path, SIZES)
    encoder, results = gpu(failing={(step, count): "lost"}), list[Result]()
    if (step, count) == ("acquire", 5):
        return  # there are two slots
    with pytest.raises(DeviceLostError, match=LOST):
        for result in score_items(detector(encoder), wanted, workers=2):
            results.append(result)
    expected = summary(list(score_items(detector(Sums()), wanted)))
    finished = sum(not result.error for result in results)
    assert summary(results[:finished]) == expected[:finished]
    assert summary(results[finished:]) == [(name, None, LOST) for name, _, _ in expected[finished : len(results)]]
    assert finished < len(results) < len(wanted)
    rest = list(score_items(detector(gpu()), wanted[len(results) :]))
    assert summary(rest) == expected[len(results) :]
    assert decoding() == []


def test_what_was_finished_when_the_last_gpu_was_lost(tmp_path: Path) -> None:
    """The third batch needs the slot of the first, which is through, and is lost."""
    results, wanted = list[Result](), items(tmp_path, [(32, 80)] * 3)
    with pytest.raises(DeviceLostError):
        for result in score_items(detector(gpu(failing={("launch", 2): "lost"})), wanted):
            results.append(result)
    assert [result.error for result in results] == ["", LOST, LOST]


def test_another_gpu_takes_over(tmp_path: Path) -> None:
    wanted = items(tmp_path, SIZES)
    cards = gpu(failing={("wait", 2): "lost"}), gpu(device="cuda:1", failing={("launch", 1): "memory"})
    found = list(score_items(detector(FakeReplicas(*cards)), wanted, workers=2))
    assert summary(found) == summary(list(score_items(detector(Sums()), wanted)))


class LostHead(Mean):
    """Stops working after some images."""

    def __init__(self, left: int) -> None:
        self.left = left

    def run(self, batch: Array) -> list[Array]:
        self.left -= 1
        if self.left < 0:
            raise DeviceLostError("cuda:0", REASON)
        return super().run(batch)


@pytest.mark.parametrize("left", [0, 3])
def test_a_head_without_a_gpu(tmp_path: Path, left: int) -> None:
    wanted, results = items(tmp_path, SIZES), list[Result]()
    with pytest.raises(DeviceLostError, match=LOST):
        for result in score_items(detector(gpu(), LostHead(left)), wanted, workers=2):
            results.append(result)
    errors = [result.error for result in results]
    assert errors == [""] * errors.count("") + [LOST] * errors.count(LOST)
    assert LOST in errors
    assert errors.count("") <= left


class NarrowHead(Mean):
    """Takes no more views of an image than its plan was built for."""

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        if any(batch.shape[1] > 9 for batch in batches):
            raise EngineError("too many views")
        return super().run_all(batches)


def test_what_the_head_does_not_take_is_that_images_error(tmp_path: Path) -> None:
    wanted = items(tmp_path, [(64, 64), (64, 80), (64, 64), (1, 1)])
    results = list(score_items(detector(gpu(), NarrowHead()), wanted))
    assert [result.error for result in results] == ["", "too many views", "", ""]
    with pytest.raises(EngineError, match="too many views"):
        detector(gpu(), NarrowHead()).score(wanted[1].path)


def test_the_head_is_given_what_is_ready_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    run_all = Mean.run_all
    monkeypatch.setattr(Mean, "run_all", lambda self, batches: (given.append(len(batches)), run_all(self, batches))[1])
    monkeypatch.setattr("spai_runtime.scoring.pipeline.SCORED_AT_ONCE", 5)
    assert len(list(score_items(detector(gpu()), items(tmp_path, [(40, 40)] * 12), batch_size=1000))) == 12
    assert given == [5, 5, 2]


def test_an_image_that_no_gpu_holds_is_a_row(tmp_path: Path) -> None:
    encoder = gpu(memory=1_000_000)
    results = list(score_items(detector(encoder), items(tmp_path, [(64, 64), (600, 600), (64, 64)]), batch_size=8))
    assert [result.error for result in results] == [
        "",
        "600×600 pixels do not fit into the memory of cuda:0; resize it",
        "",
    ]


def test_one_image_takes_the_smallest_batch_that_holds_it(photo: Write) -> None:
    encoder = gpu(batch_size=48)
    scoring = detector(encoder)
    for height, width, bucket in ((1, 1, 1), (64, 64, 16), (96, 96, 32), (300, 40, 32), (300, 301, 48)):
        encoder.launched.clear()
        score = scoring.score(photo("a.png", height, width))
        assert set(encoder.launched) == {bucket}
        assert score.logit == pytest.approx(detector(Sums()).score(pixels(height, width)).logit, rel=1e-6)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int, *arguments: Any, **options: Any) -> None:
            asked.append(threads)
            super().__init__(threads, *arguments, **options)

    monkeypatch.setattr("spai_runtime.scoring.reading.ThreadPoolExecutor", Pool)
    for cores, threads in ((1, 1), (4, 4), (96, 32)):
        monkeypatch.setattr("spai_runtime.scoring.pipeline.cores", lambda cores=cores: cores)
        assert [list(score_items(detector(encoder), [])) for encoder in (Sums(), gpu())] == [[], []]
        assert (asked.pop(0), asked.pop(0)) == (threads, threads)


@pytest.mark.parametrize("devices", [["cuda:0"], ["cuda:0", "cuda:1"]], ids=len)
def test_cupys_machinery(machine: Any, tmp_path: Path, devices: list[str]) -> None:
    """Streams, events, pinned memory and the kernel that cuts, on GPUs that do nothing until they are waited for."""
    wanted = items(tmp_path, SIZES)
    engine = Replicas([cuda_engine(machine, device) for device in devices])
    found = list(score_items(detector(engine), wanted, workers=4))
    assert summary(found) == summary(list(score_items(detector(Sums()), wanted)))
    machine.check()
    machine.pageable_copies, used = 0, [card.used for card in machine.gpus]
    assert summary(list(score_items(detector(engine), wanted, workers=4))) == summary(found)
    assert machine.pageable_copies == 0  # every upload was from pinned memory
    assert [card.used for card in machine.gpus] == used  # no image stays, and slots are used again


@pytest.mark.parametrize("after", [0, 5, 12])
def test_cupys_machinery_on_a_gpu_that_is_lost(machine: Any, tmp_path: Path, after: int) -> None:
    wanted = items(tmp_path, SIZES)
    engine = Replicas([cuda_engine(machine, device) for device in ("cuda:0", "cuda:1")])
    machine.lose(0, after)
    found = list(score_items(detector(engine), wanted, workers=4))
    assert summary(found) == summary(list(score_items(detector(Sums()), wanted)))
    assert [replica.device for replica in engine.replicas] == ["cuda:1"]
    machine.check()


@pytest.mark.parametrize("after", [0, 7, 16, 19])
def test_cupys_machinery_without_memory(
    machine: Any, tmp_path: Path, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the first slot, in the second, in an upload."""
    wanted, engine = items(tmp_path, SIZES), cuda_engine(machine, "cuda:0")
    machine.fail_allocation(after, times=2)  # the engine itself tries twice
    found = list(score_items(detector(engine), wanted, batch_size=8, workers=1))
    assert summary(found) == summary(list(score_items(detector(Sums()), wanted)))
    assert {record.message for record in caplog.records} <= {
        f"cuda:0 is out of memory; going on with batches of {size} views" for size in (4, 2)
    }
    machine.check()
