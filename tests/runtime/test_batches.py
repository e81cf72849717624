"""Full batches, in order, and features that do not depend on what else is in a batch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError
from spai_runtime.scoring.batcher import HostBatcher, WholeImageBatcher
from spai_runtime.scoring.batchers import batcher_of
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.views import Resize, Tiles, WholeImage
from tests.support.encodings import encoding
from tests.support.engines import Sums
from tests.support.images import pixels

POLICY = Tiles(size=8, stride=8, minimum=0)
SHAPE = (8, 8)


def tiles(views: int, seed: int = 0) -> Encoding:
    """An image of this many tiles in a row."""
    return encoding(pixels(8, 8 * views, seed), POLICY)


def sums(views: int, seed: int = 0) -> NDArray[np.float32]:
    """What Sums gives for `tiles`, (V, 3)."""
    return pixels(8, 8 * views, seed).reshape(8, views, 8, 3).sum(axis=(0, 2), dtype=np.float32)


def test_an_encoding_counts_down() -> None:
    taken = tiles(2)
    assert not taken.done
    taken.receive(1, np.full(3, 1, np.float32))
    taken.receive(0, np.full(3, 2, np.float32))
    assert taken.done
    assert taken.features.tolist() == [[2, 2, 2], [1, 1, 1]]


def test_an_encoding_that_failed_is_done() -> None:
    taken = tiles(2)
    assert taken.plane.held
    taken.fail("it does not fit")
    assert (taken.done, taken.error, taken.plane.held) == (True, "it does not fit", False)
    taken.release()  # once more does nothing
    with pytest.raises(AssertionError):
        taken.receive(0, np.zeros(3, np.float32))


def test_pixels_go_when_all_views_are_cropped() -> None:
    """Though some wait in the buffer."""
    taken = tiles(3)
    with HostBatcher(Sums(), SHAPE, 2) as batcher:
        assert taken.plane.nbytes == 8 * 24 * 4
        batcher.add(taken)
        assert (taken.missing, taken.plane.nbytes, batcher.advance()) == (1, 0, False)


@given(views=st.lists(st.integers(1, 20), max_size=8), batch_size=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_batches_are_full_and_rows_find_their_image(views: list[int], batch_size: int) -> None:
    engine, encodings = Sums(), [tiles(count, seed) for seed, count in enumerate(views)]
    batcher = HostBatcher(engine, SHAPE, batch_size)
    for taken in encodings:
        batcher.add(taken)
        assert not taken.plane.held
    batcher.flush()
    full, rest = divmod(sum(views), batch_size)
    assert engine.batches == [batch_size] * full + [rest] * bool(rest)
    for seed, taken in enumerate(encodings):
        np.testing.assert_array_equal(taken.features, sums(views[seed], seed))


def test_an_image_is_done_when_its_last_batch_ran() -> None:
    engine, first, second = Sums(), tiles(3), tiles(2)
    batcher = HostBatcher(engine, SHAPE, 4)
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
        size, _ = detector.manifest.views.shape
        assert size is not None
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
            manifest = detector.manifest
            encodings = [encoding(image, manifest.views, manifest.features) for image in which]
            with batcher_of(detector.encoder, manifest.views.shape, size) as batcher:
                for taken in encodings:
                    batcher.add(taken)
                batcher.flush()
            return [taken.features for taken in encodings]

        together = features(images, batch_size)
        for image, found in zip(images, together, strict=True):
            np.testing.assert_array_equal(found, features([image], 8)[0])


def test_whole_images_of_any_size_run_one_by_one() -> None:
    engine, sizes = Sums(), [(8, 8), (5, 30), (1, 1), (40, 7)]
    images = [pixels(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    batcher, encodings = WholeImageBatcher(engine), [encoding(image, WholeImage()) for image in images]
    for taken, image in zip(encodings, images, strict=True):
        batcher.add(taken)
        assert (taken.done, taken.plane.held) == (True, False)
        np.testing.assert_array_equal(taken.features, image.sum(axis=(0, 1), dtype=np.float32)[None])
    assert engine.batches == [1, 1, 1, 1]


def test_views_of_a_resized_image_are_cropped_from_it() -> None:
    image, policy = pixels(20, 30), Tiles(8, 8, 0, resize=Resize(16, filter="bilinear"))
    taken = encoding(image, policy)
    resized = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BILINEAR))
    with HostBatcher(Sums(), SHAPE, 4) as batcher:
        batcher.add(taken)
        batcher.flush()
    expected = resized.reshape(2, 8, 3, 8, 3).sum(axis=(1, 3), dtype=np.float32).reshape(6, 3)
    np.testing.assert_array_equal(taken.features, expected)


class Narrow(Sums):
    """Takes no image that is wider than its plan was built for."""

    def run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        if batch.shape[2] > 16:
            raise EngineError("17 width at once are more than the 16 that the plan was built for")
        return super().run(batch)


def test_a_whole_image_that_the_engine_does_not_take_is_that_images_error() -> None:
    encodings = [encoding(pixels(8, width), WholeImage()) for width in (16, 17, 4)]
    batcher = WholeImageBatcher(Narrow())
    for taken in encodings:
        batcher.add(taken)
    assert [bool(taken.error) for taken in encodings] == [False, True, False]
    assert all(taken.done and not taken.plane.held for taken in encodings)
