"""Full batches, in order, and features that do not depend on what else is in a batch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.detector import Detector
from spai_runtime.images import Picture
from spai_runtime.scoring.batcher import HostBatcher, Job
from spai_runtime.views import Tiles
from tests.support.engines import Sums
from tests.support.images import pixels

POLICY = Tiles(size=8, stride=8, minimum=0)


def job(views: int, seed: int = 0) -> Job:
    """An image of this many tiles in a row."""
    picture = Picture.from_array(pixels(8, 8 * views, seed))
    return Job(picture, POLICY.layout(8, 8 * views), 3)


def sums(views: int, seed: int = 0) -> NDArray[np.float32]:
    """What Sums gives for `job`, (V, 3)."""
    return pixels(8, 8 * views, seed).reshape(8, views, 8, 3).sum(axis=(0, 2), dtype=np.float32)


def test_a_job_counts_down() -> None:
    taken = job(2)
    assert not taken.done
    taken.receive(1, np.full(3, 1, np.float32))
    taken.receive(0, np.full(3, 2, np.float32))
    assert taken.done
    assert taken.features.tolist() == [[2, 2, 2], [1, 1, 1]]


def test_a_job_that_failed_is_done() -> None:
    taken, dropped = job(2), []
    taken.pixels, taken.dropped = pixels(8, 16), lambda: dropped.append(taken)
    taken.fail("it does not fit")
    assert (taken.done, taken.error, taken.picture, taken.pixels) == (True, "it does not fit", None, None)
    taken.drop()
    assert dropped == [taken]  # once
    with pytest.raises(AssertionError):
        taken.receive(0, np.zeros(3, np.float32))


def test_what_a_job_costs() -> None:
    """Nothing any more once its views are cut, though some wait in the buffer."""
    taken = job(3)
    with HostBatcher(Sums(), POLICY.size, 2) as batcher:
        cost = batcher.cost(taken)
        batcher.prepare(taken)
        assert (cost, batcher.cost(taken)) == (8 * 24 * 4, 8 * 24 * 4)
        batcher.add(taken)
        assert (taken.missing, batcher.cost(taken), batcher.advance()) == (1, 0, False)


@given(views=st.lists(st.integers(1, 20), max_size=8), batch_size=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_batches_are_full_and_rows_find_their_image(views: list[int], batch_size: int) -> None:
    engine, jobs = Sums(), [job(count, seed) for seed, count in enumerate(views)]
    batcher = HostBatcher(engine, POLICY.size, batch_size)
    for taken in jobs:
        batcher.add(taken)
        assert taken.picture is None  # its pixels are no longer held
    batcher.flush()
    full, rest = divmod(sum(views), batch_size)
    assert engine.batches == [batch_size] * full + [rest] * bool(rest)
    for seed, taken in enumerate(jobs):
        np.testing.assert_array_equal(taken.features, sums(views[seed], seed))


def test_an_image_is_done_when_its_last_batch_ran() -> None:
    engine, first, second = Sums(), job(3), job(2)
    batcher = HostBatcher(engine, POLICY.size, 4)
    batcher.add(first)
    assert (first.done, engine.batches) == (False, [])
    batcher.add(second)
    assert (first.done, second.done, engine.batches) == (True, False, [4])
    batcher.flush()
    batcher.flush()
    assert (second.done, engine.batches) == (True, [4, 1])


@pytest.mark.parametrize("name", ["tiny_detector", "golden_detector"])
def test_features_do_not_depend_on_the_batch(name: str, request: pytest.FixtureRequest) -> None:
    """Bit for bit, whatever the size of the batch and whichever views are its neighbours."""
    with Detector.load(request.getfixturevalue(name), device="cpu") as detector:
        size = detector.manifest.views.size
        views = np.stack([pixels(size, size, seed) for seed in range(8)])
        (expected,) = detector.encoder.run(views)
        for count in (1, 2, 3, 5, 7):
            for start in range(0, len(views) - count + 1, count):
                (found,) = detector.encoder.run(views[start : start + count])
                np.testing.assert_array_equal(found, expected[start : start + count])
        order = [5, 0, 7, 2]
        np.testing.assert_array_equal(detector.encoder.run(views[order])[0], expected[order])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_features_do_not_depend_on_other_images(tiny_detector: Path, batch_size: int) -> None:
    images = [pixels(height, width) for height, width in ((20, 30), (96, 64), (64, 160), (70, 33))]
    with Detector.load(tiny_detector, device="cpu") as detector:

        def features(which: list[NDArray[np.uint8]], size: int) -> list[NDArray[np.float32]]:
            batcher, jobs = detector.batcher(size), [detector.job(Picture.from_array(image)) for image in which]
            for taken in jobs:
                batcher.add(taken)
            batcher.flush()
            return [taken.features for taken in jobs]

        together = features(images, batch_size)
        for image, found in zip(images, together, strict=True):
            np.testing.assert_array_equal(found, features([image], 8)[0])
