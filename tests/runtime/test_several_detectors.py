"""Several detectors over the same images: decoded once, resized once a size, each with the scores that it has alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spai_runtime import Detector, Result, Threshold
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import score_items
from spai_runtime.views import CentreCrop, Resize, TenCrop, Tiles, ViewPolicy, WholeImage
from tests.gpu.fakes.fake_slots import FakeGpu
from tests.support.engines import Mean, Sums
from tests.support.images import write_bad_images
from tests.support.manifests import MANIFEST
from tests.support.scoring import SIZES, decoding, in_time, items

SMALL = Resize(24, filter="bilinear")
POLICIES: dict[str, ViewPolicy] = {
    "tiles": Tiles(32, 16, 0),
    "resized": CentreCrop(32, Resize(40)),
    "ten": TenCrop(16, Resize(12), "wrap"),  # each view is padded
    "whole": WholeImage(),
    "small": WholeImage(SMALL),
    "smaller": CentreCrop(16, SMALL, "zero"),
}


def detector(name: str, encoder: Sums | FakeGpu | None = None) -> Detector:
    manifest = replace(MANIFEST, name=name, features=3, views=POLICIES[name])
    return Detector(manifest, encoder or Sums(), Mean(), Threshold(0.5, "test"))


def logits(results: Sequence[Result]) -> list[list[float | None]]:
    return [[score and score.logit for score in result.scores] for result in results]


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_each_has_the_scores_that_it_has_alone(tmp_path: Path, batch_size: int) -> None:
    wanted = items(tmp_path, SIZES)
    alone = [logits(list(score_items(detector(name), wanted))) for name in POLICIES]
    found = list(score_items([detector(name) for name in POLICIES], wanted, batch_size=batch_size, workers=3))
    assert [result.item for result in found] == wanted
    assert logits(found) == [[score for (score,) in scores] for scores in zip(*alone, strict=True)]
    assert len({*logits(found)[SIZES.index((200, 120))]}) == len(POLICIES)
    assert decoding() == []


def test_an_image_is_decoded_once_and_resized_once_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()
    load, resized = Picture.load, Picture.resized

    def counted_load(picture: Picture) -> Picture:
        calls["load"] += 1
        return load(picture)

    def counted_resize(picture: Picture, height: int, width: int, filter: str) -> Picture:  # noqa: A002
        calls["resize"] += 1
        return resized(picture, height, width, filter)  # type: ignore[arg-type]

    monkeypatch.setattr(Picture, "load", counted_load)
    monkeypatch.setattr(Picture, "resized", counted_resize)
    list(score_items([detector(name) for name in POLICIES], items(tmp_path, [(40, 50)] * 3)))
    assert calls == {"load": 3, "resize": 3 * 3}


def test_on_a_gpu_and_on_the_host_at_once(tmp_path: Path) -> None:
    wanted = items(tmp_path, SIZES)
    card = FakeGpu(side=32)
    cards = detector("resized", FakeGpu(side=32)), detector("ten", FakeGpu(side=16))
    mixed = [detector("tiles", card), detector("resized"), *cards, detector("whole")]
    found = logits(list(score_items(mixed, wanted, workers=2)))
    names = "tiles", "resized", "resized", "ten", "whole"
    alone = [logits(list(score_items(detector(name), wanted))) for name in names]
    assert found == [[score for (score,) in scores] for scores in zip(*alone, strict=True)]
    assert card.steps["upload"] == len(SIZES)


def test_pixels_stay_until_the_last_detector_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a budget that holds one image, and detectors whose batches end at other images."""
    monkeypatch.setattr("spai_runtime.scoring.pipeline.PIXEL_BYTES", 1)
    monkeypatch.setattr("spai_runtime.scoring.pipeline.GPU_PIXEL_BYTES", 1)
    several = [detector("tiles", FakeGpu(side=32)), detector("tiles", FakeGpu(side=32)), detector("ten")]
    results = list[Result]()
    in_time(lambda: results.extend(score_items(several, items(tmp_path, SIZES), batch_size=7, workers=3)))
    assert [result.error for result in results] == [""] * len(SIZES)
    assert all(first == second for first, second, _ in logits(results))


def test_what_one_cannot_look_at_the_others_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 32 * 60 // 2)
    (result,) = score_items([detector("tiles"), detector("whole")], items(tmp_path, [(2, 100)]))
    assert result.error == "tiles: 100×2 pixels would be padded past the limit of 1920 pixels; crop it"
    assert [score is None for score in result.scores] == [True, False]
    with pytest.raises(AssertionError):
        _ = result.score


def test_what_none_can_read_is_one_error(tmp_path: Path) -> None:
    bad = write_bad_images(tmp_path)
    (tmp_path / "unreadable.jpg").unlink()  # root could read it
    paths = [path for path in sorted(tmp_path.iterdir()) if path.name in bad]
    results = list(score_items([detector("tiles"), detector("ten")], [_item(path) for path in paths]))
    for result in results:
        assert bad[result.item.path.name] in result.error
        assert "tiles:" not in result.error
        assert result.scores == ()


def test_a_logit_that_is_no_number_is_of_one_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = detector("ten")
    monkeypatch.setattr(broken.head, "run", lambda _: [np.full((1, 1), np.nan, np.float32), np.ones((1, 1))])
    results = list(score_items([detector("tiles"), broken], items(tmp_path, [(40, 40)] * 2)))
    assert [result.error for result in results] == ["ten: the detector's logit is nan, which no score follows from"] * 2
    assert all(result.scores[0] is not None and result.scores[1] is None for result in results)


def _item(path: Path) -> Item:
    return Item(path, path.name)
