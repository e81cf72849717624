"""Perturbations: which levels there are, and that each means what upstream's setting means."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from spai_runtime.errors import UserError
from spai_train.data.perturb import NONE, Kind, Perturbation
from tests.support.images import pixels
from tests.support.noise import power

LEVELS = {Kind.NONE: 0, Kind.JPEG: 85, Kind.WEBP: 70, Kind.BLUR: 5, Kind.NOISE: 4, Kind.SCALE: 0.5}
ALL = [Perturbation(kind, level) for kind, level in LEVELS.items()]


def through_file(image: NDArray[np.uint8], codec: str, quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, codec, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize(("kind", "codec"), [(Kind.JPEG, "JPEG"), (Kind.WEBP, "WEBP")])
def test_quality_is_that_of_the_file(kind: Kind, codec: str) -> None:
    image = pixels(40, 50)
    for quality in (1, 60, 100):
        np.testing.assert_array_equal(Perturbation(kind, quality).apply(image), through_file(image, codec, quality))


@pytest.mark.parametrize("size", [11, 21])
def test_blur_has_opencvs_deviation_for_its_size(size: int) -> None:
    image = pixels(40, 50)
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="mirror", radius=(size // 2,) * 3)
    np.testing.assert_allclose(Perturbation(Kind.BLUR, size).apply(image), expected, atol=0.5 + 1e-3)


def test_line_that_is_blurred_shows_the_binomial_kernel() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4] = 255
    assert Perturbation(Kind.BLUR, 3).apply(image)[:, 4, 0].tolist() == [0, 0, 0, 64, 128, 64, 0, 0, 0]


def test_noise_level_is_its_deviation_before_it_is_cut_to_grey_levels() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = Perturbation(Kind.NOISE, 6).apply(grey, seed=3).astype(float)
    assert noisy.var() == pytest.approx(power(6), rel=5 * np.sqrt(2 / noisy.size))


def test_noise_follows_from_its_seed() -> None:
    image, noise = pixels(20, 30), Perturbation(Kind.NOISE, 6)
    np.testing.assert_array_equal(noise.apply(image, seed=1), noise.apply(image, seed=1))
    assert (noise.apply(image, seed=1) != noise.apply(image, seed=2)).mean() > 0.5


def test_scale_cuts_its_sides_to_whole_pixels() -> None:
    image = pixels(41, 67)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, (30, 50), mode="bilinear", align_corners=False, antialias=False)
    scaled = Perturbation(Kind.SCALE, 0.75).apply(image)  # 30.75, 50.25
    np.testing.assert_allclose(scaled, expected[0].permute(1, 2, 0), atol=0.5 + 1e-3)


@pytest.mark.parametrize("perturbation", ALL, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (40, 50)])
def test_any_image_is_perturbed_and_left_as_it_is(perturbation: Perturbation, shape: tuple[int, int]) -> None:
    image = pixels(*shape)
    before = image.copy()
    perturbed = perturbation.apply(image)
    scale = perturbation.level if perturbation.kind is Kind.SCALE else 1
    assert (perturbed.dtype, perturbed.shape) == (np.uint8, (*(max(1, math.floor(side * scale)) for side in shape), 3))
    np.testing.assert_array_equal(image, before)


def test_none_is_the_image_itself() -> None:
    image = pixels(5, 6)
    assert NONE.apply(image) is image
    assert Perturbation(Kind("none")) == NONE


def test_name_is_kind_and_level() -> None:
    assert [str(perturbation) for perturbation in ALL] == [
        "none",
        "jpeg 85",
        "webp 70",
        "blur 5",
        "noise 4",
        "scale 0.5",
    ]


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        *[(kind, level) for kind in Kind for level in (math.nan, math.inf, -1.0)],
        *[(kind, level) for kind in (Kind.JPEG, Kind.WEBP) for level in (0, 50.5, 101)],
        *[(Kind.BLUR, level) for level in (0, 2, 3.5)],
        (Kind.SCALE, 0),
        (Kind.NONE, 1),
    ],
)
def test_level_that_its_kind_does_not_have_is_an_error(kind: Kind, level: float) -> None:
    with pytest.raises(UserError, match=rf"^{kind} [-\w.]+ is not a perturbation: the level is ") as caught:
        Perturbation(kind, level)
    assert "\n" not in str(caught.value)


def test_an_exported_detector_is_tested_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import spai_train.data.perturb"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
