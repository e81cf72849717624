"""Ten crops and --resize-to, against torchvision, torch, albumentations' sizes and the detector itself."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2.functional import pad, ten_crop

from spai_runtime.detector import Detector
from spai_runtime.engines.base import HostEngine
from spai_runtime.errors import ImageError, UserError
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest, Threshold
from spai_runtime.views import CentreCrop, WholeImage
from spai_runtime.views.resize import Resize
from spai_train.cli import main
from spai_train.data.perturb import Kind, Perturbation
from spai_train.data.table import Row
from spai_train.evaluation.pictures import PerturbedPicture, ResizedPicture
from spai_train.evaluation.scored import score_rows
from spai_train.evaluation.ten_crop import EachAlone, Reduction, with_ten_crops
from tests.support.images import Write

SIDE = 32  # of the tiny detector's views
SIZES = ((70, 90), (32, 32), (20, 50), (31, 19), (33, 40))


@pytest.fixture
def rows(photo: Write) -> list[Row]:
    return [Row(f"{i}.png", photo(f"{i}.png", *size, seed=i), i % 2, "test", "s") for i, size in enumerate(SIZES)]


def upstreams_crops(path: Path) -> Sequence[Image.Image]:
    """`safe_ten_crop` of upstream's data_finetune.py: zeros half before and half after, the odd one after."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    short = [max(SIDE - side, 0) for side in image.size]
    before, after = [side // 2 for side in short], [side - side // 2 for side in short]
    return ten_crop(pad(image, [*before, *after]), size=SIDE)  # type: ignore[no-any-return]


@pytest.mark.parametrize("reduction", Reduction)
def test_ten_crops_are_scored_each_as_an_image(reduction: Reduction, tiny_detector: Path, rows: list[Row]) -> None:
    """A detector that looks at an image of one view's size five times attends to five that are the same."""
    with Detector.load(tiny_detector, device="cpu") as detector:
        (found,) = score_rows([with_ten_crops(detector, reduction)], rows)
        crops = [[detector.score(np.asarray(crop)).logit for crop in upstreams_crops(row.path)] for row in rows]
    expected = np.max(crops, axis=1) if reduction is Reduction.MAX else np.mean(crops, axis=1)
    assert np.ptp(crops[0]) > 1e-3
    np.testing.assert_allclose(found.logit, expected, atol=1e-5)


class Sum(HostEngine):
    """A head whose logit is the sum of all features, and which takes one image at a time, as a plan may."""

    device, label, batch_size = "cpu", "sum", 4

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        assert batch.shape[:2] == (1, 1)
        return [batch.sum(axis=(1, 2))[:, None], np.ones((1, 1), np.float32)]

    def close(self) -> None: ...


@pytest.mark.parametrize("reduction", Reduction)
def test_several_images_keep_their_views_apart(reduction: Reduction) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(images, 10, 3)).astype(np.float32) for images in (1, 2, 1)]
    head = EachAlone(Sum(), reduction)
    for batch, (logit,) in zip(batches, head.run_all(batches), strict=True):
        logits = batch.sum(axis=2)
        expected = logits.max(axis=1) if reduction is Reduction.MAX else logits.mean(axis=1)
        np.testing.assert_allclose(logit, expected[:, None], rtol=1e-5)
        np.testing.assert_array_equal(head.run(batch)[0], logit)


def test_a_resize_of_the_detectors_own_stays_and_whole_images_are_refused() -> None:
    def detector(views: Any) -> Detector:
        manifest = Manifest("x", "spai", views, 3, Threshold(0.5, "a test"))
        return Detector(manifest, Sum(), Sum(), manifest.threshold)

    resized = with_ten_crops(detector(CentreCrop(24, Resize(30))), Reduction.MEAN).manifest.views
    assert (resized.shape, resized.resize) == ((24, 24), Resize(30))
    with pytest.raises(UserError, match="x looks at views that are no squares of one size: leave --ten-crop out"):
        with_ten_crops(detector(WholeImage()), Reduction.MEAN)


# (height, width), side → what A.SmallestMaxSize of albumentations 1.4.14 makes of it.
ALBUMENTATIONS = {
    ((40, 60), 50): (50, 75),
    ((100, 60), 50): (83, 50),
    ((100, 60), 224): (373, 224),
    ((37, 53), 50): (50, 72),
    ((37, 53), 224): (224, 321),
    ((300, 200), 50): (75, 50),
    ((50, 50), 50): (50, 50),
}


@pytest.mark.parametrize(("given", "size"), ALBUMENTATIONS.items())
def test_resizing_is_upstreams(given: tuple[tuple[int, int], int], size: tuple[int, int], photo: Write) -> None:
    (height, width), side = given
    path = photo("a.png", height, width)
    plain = Picture.open(path)
    picture = ResizedPicture(Picture.open(path), side)
    assert (picture.height, picture.width) == size
    assert picture.decoding_nbytes > plain.nbytes + picture.nbytes
    planes = torch.from_numpy(plain.load().array().copy()).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=False)
    np.testing.assert_allclose(picture.load().array(), expected[0].permute(1, 2, 0), atol=0.5 + 1e-3)


def test_a_perturbation_comes_before_the_resize(photo: Write) -> None:
    path = photo("a.png", 40, 60)
    scaled = PerturbedPicture(Picture.open(path), Perturbation(Kind.SCALE, 0.5), 0)
    both = ResizedPicture(PerturbedPicture(Picture.open(path), Perturbation(Kind.SCALE, 0.5), 0), 30)
    expected = ResizedPicture(Picture.from_array(scaled.load().array()), 30)
    assert (both.height, both.width) == (30, 45)
    np.testing.assert_array_equal(both.load().array(), expected.load().array())


def test_a_sliver_is_not_blown_up(photo: Write) -> None:
    with pytest.raises(ImageError, match="3000×1 pixels would be resized past the limit of"):
        ResizedPicture(Picture.open(photo("a.png", 1, 3000)), 1000)


def test_the_command_does_both_and_says_so(tiny_detector: Path, rows: list[Row], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,class\n" + "".join(f"{row.name},{row.label}\n" for row in rows))
    output = tmp_path / "out"
    options = ["--engine", tiny_detector, "--device", "cpu", "--resamples", 5, "--resize-to", 48, "--ten-crop", "max"]
    assert main(["evaluate", *map(str, [table, "--output", output, *options])]) == 0
    with Detector.load(tiny_detector, device="cpu") as detector:
        ten = with_ten_crops(detector, Reduction.MAX)
        expected = [ten.score(ResizedPicture(Picture.open(row.path), 48).load().array()).logit for row in rows]
    with (output / "scores.csv").open(newline="") as file:
        found = [float(row["logit"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    report = json.loads((output / "metrics.json").read_text())
    assert (report["resize_to"], report["ten_crop"]) == (48, "max")
