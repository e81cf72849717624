"""Streams: how batches share many cores, and several batches at once that give the rows of one after the other."""

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime import Detector, Result, Threshold, score_all
from spai_runtime.engines.base import Contract
from spai_runtime.engines.streams import Share, share, share_of
from spai_runtime.errors import EngineError
from spai_runtime.scoring.batcher import HostBatcher
from spai_runtime.scoring.batchers import batcher_of
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.pipeline import score_items
from spai_runtime.scoring.stream_batcher import StreamBatcher
from spai_runtime.views import Tiles
from tests.support.encodings import encoding
from tests.support.engines import Mean, Sums
from tests.support.images import pixels
from tests.support.manifests import MANIFEST
from tests.support.scoring import PATIENCE, SIZES, in_time, items, stops_after

SHAPE = (8, 8)


def tiles(views: int, seed: int = 0) -> Encoding:
    """An image of this many tiles in a row."""
    return encoding(pixels(8, 8 * views, seed), Tiles(size=8, stride=8, minimum=0))


def detector(encoder: Sums) -> Detector:
    """Counts channels; its views are tiles of 32, stride 16."""
    return Detector(replace(MANIFEST, features=3), encoder, Mean(), Threshold(0.5, "test"))


def encoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("encode")]


@dataclass
class Meeting(Sums):
    """An engine in which no batch ends before as many run as it has streams: each is on cores of its own."""

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.streams, timeout=PATIENCE)

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        self.barrier.wait()
        return super().run(batch)


@dataclass
class Gate(Sums):
    """An engine whose batches wait until a gate opens."""

    opened: threading.Event = field(default_factory=threading.Event)

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        features = super().run(batch)
        assert self.opened.wait(PATIENCE)
        return features


@dataclass
class Uneven(Sums):
    """An engine whose batches take from 0 to 2 ms each, so that they do not end in their order.

    :param fails: which sum of a view it fails at
    """

    fails: float | None = None

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        (features,) = super().run(batch)
        time.sleep(float(features[0, 0]) % 5 * 0.0005)
        if self.fails in features:
            raise EngineError("this view is too much")
        return [features]


def test_hardly_a_core_is_left_over() -> None:
    for available in range(1, 513):
        streams, threads = share(available)
        assert 0.88 * available <= streams * threads <= available


def test_few_cores_run_one_batch_and_many_run_several() -> None:
    assert [share(available) for available in (1, 2, 7)] == [Share(1, 1), Share(1, 2), Share(1, 7)]
    assert [share(available) for available in (8, 14, 64)] == [Share(2, 4), Share(2, 7), Share(16, 4)]


def test_only_batches_of_equal_views_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spai_runtime.engines.streams.cores", lambda: 64)
    assert share_of(Contract.encoder((224, 224), 1096)) == Share(16, 4)
    assert share_of(Contract.encoder((None, None), 2048)) == share_of(Contract.head(1096)) == Share(1, 64)


def test_one_stream_needs_no_thread() -> None:
    assert type(batcher_of(Sums(), SHAPE)) is HostBatcher
    assert type(batcher_of(Sums(streams=2), SHAPE)) is StreamBatcher


def test_64_cores_are_busy(tmp_path: Path) -> None:
    """Wherever batches are left, as many run as fit on the cores: here a batch ends only when all the others run."""
    streams, threads = share(64)
    assert streams * threads == 64
    encoder = Meeting(streams=streams)
    wanted = items(tmp_path, [(64, 64)] * 32)  # of 9 views
    in_time(lambda: list(score_items(detector(encoder), wanted, batch_size=3, workers=2)).clear())
    assert encoder.batches == [3] * 96


@pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
@pytest.mark.parametrize("streams", [2, 5])
def test_rows_are_those_of_one_stream(tmp_path: Path, streams: int, batch_size: int) -> None:
    wanted = items(tmp_path, SIZES)
    expected = list(score_items(detector(Sums()), wanted, batch_size=batch_size))
    found = list(score_items(detector(Uneven(streams=streams)), wanted, batch_size=batch_size, workers=3))
    assert [_row(result) for result in found] == [_row(result) for result in expected]
    assert encoding_threads() == []


def test_onnx_runtime_gives_the_same_rows(tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digit."""
    paths = [item.path for item in items(tmp_path, [(96, 64), (20, 30), (64, 160), (70, 33)] * 2)]
    found = []
    for available, streams in ((2, 1), (12, 3)):
        monkeypatch.setattr("spai_runtime.engines.streams.cores", lambda available=available: available)
        with Detector.load(tiny_detector, device="cpu", backend="onnxruntime") as real:
            assert (real.encoder.streams, real.head.streams) == (streams, 1)
            found += [[_row(result) for result in score_all(real, paths)]]
            assert [real.score(path).logit for path in paths] == [logit for _, logit in found[-1]]
    assert found[0] == found[1]


def _row(result: Result) -> tuple[str, float]:
    assert result.score is not None
    return result.item.name, result.score.logit


def test_pixels_go_when_all_views_are_cropped() -> None:
    """Though no batch has run."""
    encoder, taken = Gate(streams=2), tiles(5)
    with StreamBatcher(encoder, SHAPE, 2) as batcher:
        batcher.add(taken)
        assert (taken.missing, taken.plane.held, batcher.advance()) == (5, False, False)
        encoder.opened.set()
        batcher.flush()
        assert taken.done
    np.testing.assert_array_equal(taken.features, _sums(5))


def _sums(views: int) -> NDArray[np.float32]:
    """What Sums gives for `tiles`."""
    return pixels(8, 8 * views, 0).reshape(8, views, 8, 3).sum(axis=(0, 2), dtype=np.float32)


def test_no_more_than_two_batches_of_a_stream_wait() -> None:
    encoder, added = Gate(streams=3), list[int]()
    with StreamBatcher(encoder, SHAPE, 2) as batcher:

        def add() -> None:
            for index in range(30):
                batcher.add(tiles(1))
                added.append(index)

        adding = threading.Thread(target=add, daemon=True)
        adding.start()
        adding.join(0.5)
        assert adding.is_alive()
        assert (encoder.batches, len(added)) == ([2, 2, 2], 2 * 6)
        encoder.opened.set()
        adding.join(PATIENCE)
        batcher.flush()
    assert (encoder.batches, len(added)) == ([2] * 15, 30)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_a_batch_that_fails_takes_nothing_with_it_that_was_before(tmp_path: Path, streams: int) -> None:
    """The rows before it are those that one stream gives, whichever batches have ended."""
    wanted = items(tmp_path, [(32, 32)] * 40)
    bad = float(pixels(32, 32, 25)[..., 0].sum())
    encoder, found = Uneven(streams=streams, fails=bad), list[str]()
    results = score_items(detector(encoder), wanted, batch_size=2)
    with pytest.raises(EngineError, match="this view is too much"):
        found.extend(result.item.name for result in results)
    assert found == [f"{index}.png" for index in range(24)]
    assert encoding_threads() == []


def test_closing_waits_for_what_runs_and_runs_no_more() -> None:
    encoder = Gate(streams=2)
    batcher = StreamBatcher(encoder, SHAPE, 1)
    batcher.add(tiles(4))
    closing = threading.Thread(target=batcher.close, daemon=True)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive(), "an engine would be freed while it runs"
    encoder.opened.set()
    closing.join(PATIENCE)
    assert (encoder.batches, encoding_threads()) == ([1, 1], [])


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_consumer_that_stops_early(tmp_path: Path, after: int) -> None:
    stops_after(after, score_items(detector(Uneven(streams=3)), items(tmp_path, SIZES), workers=4))
    assert encoding_threads() == []


@pytest.mark.parametrize(("height", "views", "batches"), [(64, 9, [3] * 3), (80, 12, [3] * 4), (32, 3, [1] * 3)])
def test_a_single_image_is_split_among_the_streams(height: int, views: int, batches: list[int]) -> None:
    image = pixels(height, 64)
    encoder = Meeting(streams=len(batches))
    score = detector(encoder).score(image)
    assert (len(score.layout), sorted(encoder.batches)) == (views, batches)
    assert score.logit == detector(Sums()).score(image).logit
    assert encoding_threads() == []
