"""Results in order, pixels within their budget, and an end to every thread."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime import Detector, Result, Threshold, score_all
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.budget import Budget
from spai_runtime.scoring.pipeline import score_items
from tests.support.engines import Mean, Sums
from tests.support.images import Write, pixels, write_bad_images, write_odd_images
from tests.support.manifests import MANIFEST
from tests.support.scoring import PATIENCE, SIZES, decoding, in_time, items, stops_after


@dataclass
class Watch:
    """Decoded pixels that are alive, in bytes."""

    live: int = 0
    peak: int = 0
    beside: dict[int, int] = field(default_factory=dict)  # size of an image → what was alive when it was decoded
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, nbytes: int) -> None:
        with self.lock:
            self.beside[nbytes] = self.live if nbytes > 0 else 0
            self.live += nbytes
            self.peak = max(self.peak, self.live)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Follows every picture from its decoding to its end."""
    watch, load = Watch(), Picture.load

    def watched(picture: Picture) -> Picture:
        watch.add(picture.nbytes)
        weakref.finalize(picture, watch.add, -picture.nbytes)
        return load(picture)

    monkeypatch.setattr(Picture, "load", watched)
    return watch


@pytest.fixture
def detector() -> Detector:
    """Counts channels; its views are tiles of 32, stride 16."""
    return Detector(replace(MANIFEST, features=3), Sums(), Mean(), Threshold(0.5, "test"))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_keep_the_order_of_the_items(detector: Detector, tmp_path: Path, batch_size: int, workers: int) -> None:
    wanted = items(tmp_path, SIZES)
    results = list(score_items(detector, wanted, batch_size=batch_size, workers=workers))
    assert [result.item for result in results] == wanted
    for index, (result, (height, width)) in enumerate(zip(results, SIZES, strict=True)):
        assert (result.height, result.width, result.error) == (height, width, "")
        assert result.score is not None
        assert result.score.logit == pytest.approx(detector.score(pixels(height, width, index)).logit)
    assert decoding() == []


def test_a_slow_decoder_does_not_change_the_order(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first image is decoded after the third."""
    third, load = threading.Event(), Picture.load

    def gated(picture: Picture) -> Picture:
        if picture.width == 41:
            assert third.wait(PATIENCE)
        loaded = load(picture)
        if picture.width == 43:
            third.set()
        return loaded

    monkeypatch.setattr(Picture, "load", gated)
    wanted = items(tmp_path, [(40, 41), (40, 42), (40, 43)])
    assert [result.item for result in score_items(detector, wanted, workers=3)] == wanted


def test_bad_images_are_rows_among_the_others(detector: Detector, tmp_path: Path) -> None:
    bad = write_bad_images(tmp_path)
    (tmp_path / "unreadable.jpg").unlink()  # root could read it
    bad.pop("unreadable.jpg")
    good = set(write_odd_images(tmp_path)) - set(bad)
    names = sorted(path.name for path in tmp_path.iterdir())
    results = list(score_all(detector, [tmp_path / name for name in names], batch_size=3))
    assert [result.item.path.name for result in results] == names
    for result in results:
        name = result.item.path.name
        assert (result.score is None) == (name in bad), result
        assert bad.get(name, "") in result.error
    assert {result.item.path.name for result in results if result.score} == good
    truncated = next(result for result in results if result.item.path.name == "truncated.jpg")
    assert (truncated.width, truncated.height) == (64, 64)  # its header could be read


def test_pixels_in_flight_stay_within_the_budget(
    detector: Detector, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 3 * 64 * 64 * 4
    monkeypatch.setattr("spai_runtime.scoring.pipeline.PIXEL_BYTES", budget)
    wanted = items(tmp_path, [(64, 64)] * 40 + [(100, 30), (64, 64), (8, 8)] * 5)
    assert len(list(score_items(detector, wanted, batch_size=2, workers=6))) == len(wanted)
    assert 64 * 64 * 4 <= watch.peak <= budget
    assert watch.live == 0


def test_more_threads_may_hold_more_pixels(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else photographs of 12 megapixels would be decoded two at a time, however many cores there are."""
    limits: list[int] = []
    monkeypatch.setattr("spai_runtime.scoring.pipeline.Budget", lambda limit: limits.append(limit) or Budget(limit))
    assert [list(score_items(detector, [], workers=workers)) for workers in (1, 8, 16, 32)] == [[]] * 4
    assert limits == [128 << 20, 128 << 20, 256 << 20, 512 << 20]


def test_an_image_above_the_budget_goes_alone(
    detector: Detector, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 3 * 64 * 64 * 4
    monkeypatch.setattr("spai_runtime.scoring.pipeline.PIXEL_BYTES", budget)
    large = 300 * 301 * 4
    wanted = items(tmp_path, [(64, 64)] * 8 + [(300, 301)] + [(64, 64)] * 8)
    in_time(lambda: deque(score_items(detector, wanted, workers=4), maxlen=0).clear())
    assert watch.beside[large] == 0
    assert watch.peak == large
    assert watch.live == 0


def test_nothing_is_read_far_ahead(detector: Detector, tmp_path: Path) -> None:
    path = items(tmp_path, [(40, 40)])[0].path
    taken: list[int] = []

    def endless() -> Iterator[Item]:
        for index in range(100_000):
            taken.append(index)
            yield Item(path, str(index))

    results = score_items(detector, endless(), batch_size=4, workers=2)
    assert [next(results).item.name for _ in range(10)] == [str(index) for index in range(10)]
    assert len(taken) < 30
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_consumer_that_stops_early(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """While decoders wait for a budget that nobody gives back."""
    monkeypatch.setattr("spai_runtime.scoring.pipeline.PIXEL_BYTES", 1)
    results = score_items(detector, items(tmp_path, SIZES), workers=4)
    stops_after(after, results)


@pytest.mark.parametrize("part", ["encoder", "head", "items"])
def test_an_exception_ends_the_run(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    wanted = items(tmp_path, SIZES)

    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    def source() -> Iterator[Item]:
        yield from wanted[:20]
        broken()

    if part != "items":
        monkeypatch.setattr(getattr(detector, part), "run", broken)
    raised: list[BaseException] = []

    def score() -> None:
        try:
            list(score_items(detector, source() if part == "items" else wanted, workers=3))
        except RuntimeError as error:
            raised.append(error)

    in_time(score)
    assert [str(error) for error in raised] == ["broken"]
    assert decoding() == []


def test_score_all_names_results_as_they_were_given(tiny_detector: Path, tmp_path: Path) -> None:
    paths = [item.path for item in items(tmp_path, [(40, 40), (1, 70)])]
    with Detector.load(tiny_detector, device="cpu") as real:
        results: list[Result] = list(score_all(real, [str(paths[0]), paths[1], "nowhere.png"]))
        assert [result.item.name for result in results] == [*map(str, paths), "nowhere.png"]
        assert results[0].score is not None
        assert results[0].score.logit == real.score(paths[0]).logit
        assert results[2].error == "cannot be read: No such file or directory"
    assert list(score_all(real, [])) == []


def test_a_logit_that_is_no_number_is_that_images_error(
    tiny_detector: Path, photo: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Detector.load(tiny_detector) as detector:
        real = detector.head.run
        logits = iter([1.0, float("nan"), float("inf")])

        def run(features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            _, attention = real(features)
            return [np.full((1, 1), next(logits), np.float32), attention]

        monkeypatch.setattr(detector.head, "run", run)
        results = list(score_all(detector, [photo(f"{index}.png", 40, 40) for index in range(3)]))
    assert [result.score is None for result in results] == [False, True, True]
    assert [result.error for result in results[1:]] == [
        "the detector's logit is nan, which no score follows from",
        "the detector's logit is inf, which no score follows from",
    ]
