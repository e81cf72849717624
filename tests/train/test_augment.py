"""Augmentations: each step alone against another library's or a formula, then any picture."""

import io
import math
from dataclasses import replace
from itertools import product

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.stats import kstest
from torchvision.transforms.functional import resize

from spai_runtime.errors import ImageError
from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, PLAIN, PRETRAIN, Augmentation
from spai_train.data.degrade import recompress
from spai_train.data.window import draw_window
from tests.support.augmenting import ALL, IMAGE, PICTURE, PROBABILITIES, SIZE, alone, grey
from tests.support.images import pixels
from tests.support.noise import power


def test_plain_view_of_a_picture_of_its_size_is_the_picture() -> None:
    np.testing.assert_array_equal(alone(), IMAGE)


@pytest.mark.parametrize("seed", range(3))
def test_fine_tuning_resizes_its_window_without_antialiasing(seed: int) -> None:
    image = pixels(150, 210)
    settings = replace(PLAIN, crop=FINETUNE.crop)
    top, left, bottom, right = draw_window(150, 210, settings.crop, settings.ratio, np.random.default_rng(seed))
    planes = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, (SIZE, SIZE), mode="bilinear", antialias=False)
    view = Augment(settings, SIZE)(Picture.from_array(image), seed)
    np.testing.assert_allclose(view, expected[0].permute(1, 2, 0), atol=1)


@pytest.mark.parametrize("seed", range(3))
def test_pretraining_resizes_its_window_as_pillow_does(seed: int) -> None:
    image = pixels(150, 210)
    settings = replace(PRETRAIN, horizontal_flip=0.0)
    top, left, bottom, right = draw_window(150, 210, settings.crop, settings.ratio, np.random.default_rng(seed))
    expected = Image.fromarray(image[top:bottom, left:right]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    view = Augment(settings, SIZE)(Picture.from_array(image), seed)
    np.testing.assert_allclose(view, np.asarray(expected, int), atol=1)


def test_pretraining_flips_sideways_alone() -> None:
    assert [getattr(PRETRAIN, name) for name in PROBABILITIES] == [0.5, *[0.0] * (len(PROBABILITIES) - 1)]
    assert PROBABILITIES[0] == "horizontal_flip"


def test_flips_are_those_of_numpy() -> None:
    np.testing.assert_array_equal(alone(horizontal_flip=1.0), IMAGE[:, ::-1])
    np.testing.assert_array_equal(alone(vertical_flip=1.0), IMAGE[::-1])


@pytest.mark.parametrize("size", [3, 4, 32, 33])
def test_rotation_shows_nothing_from_beyond_the_border(size: int) -> None:
    """Torch fills with black what lies outside."""
    white = Picture.from_array(np.full((size, size, 3), 255, np.uint8))
    augment = Augment(replace(PLAIN, rotation=1.0), size)
    assert all(augment(white, seed).min() == 255 for seed in range(200))


def test_rotation_turns_evenly_and_keeps_the_largest_square() -> None:
    """Red rises with the column and green with the row, so their slopes tell angle and magnification."""
    side, step = 60, 4
    ramps = np.zeros((side, side, 3), np.uint8)
    ramps[:, :, 1], ramps[:, :, 0] = np.indices((side, side)) * step
    augment = Augment(replace(PLAIN, rotation=1.0), side)
    columns = np.c_[np.indices((side, side)).reshape(2, -1).T, np.ones(side**2)]
    angles = []
    for seed in range(200):
        view = augment(Picture.from_array(ramps), seed)[:, :, :2].reshape(-1, 2)
        slopes = np.linalg.lstsq(columns, view / step, rcond=None)[0][:2]  # by row, by column: of red, of green
        (red_by_row, green_by_row), (red_by_column, green_by_column) = slopes
        assert red_by_column == pytest.approx(green_by_row, abs=0.01)
        assert red_by_row == pytest.approx(-green_by_column, abs=0.01)
        angle, kept = math.atan2(green_by_column, red_by_column), math.hypot(red_by_column, green_by_column)
        largest = 1 / (abs(math.sin(angle)) + abs(math.cos(angle)))
        assert largest - 2 / side - 0.01 < kept < largest + 0.01
        angles.append(math.degrees(angle))
    assert kstest(angles, "uniform", (-90, 180)).pvalue > 1e-3


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.3), (5, 0.5), (9, 2.0)])
def test_blur_is_scipys(size: int, sigma: float) -> None:
    view = alone(blur=1.0, blur_kernel=(size, size), blur_sigma=(sigma, sigma))
    expected = ndimage.gaussian_filter(IMAGE.astype(float), (sigma, sigma, 0), mode="mirror", radius=(size // 2,) * 3)
    np.testing.assert_allclose(view, expected, atol=0.5 + 1e-3)


def test_jitter_changes_each_quality_by_its_factor() -> None:
    still = {"jitter": 1.0, "brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    image = IMAGE.astype(float)
    luma = image @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(alone(**still), IMAGE, atol=1)
    np.testing.assert_allclose(alone(**still | {"brightness": (0.5, 0.5)}), image / 2, atol=1.01)
    expected = luma.mean() + 0.8 * (image - luma.mean())
    np.testing.assert_allclose(alone(**still | {"contrast": (0.8, 0.8)}), expected, atol=2)
    np.testing.assert_allclose(alone(**still | {"saturation": (0, 0)}), np.dstack([luma] * 3), atol=2)
    turned = image.max(axis=2, keepdims=True) + image.min(axis=2, keepdims=True) - image  # red to cyan and so on
    np.testing.assert_allclose(alone(**still | {"hue": (0.5, 0.5)}), turned, atol=2)


@pytest.mark.parametrize(("alpha", "lightness"), [(0.01, 0.95), (0.4, 1.0)])
def test_sharpening_is_albumentations_filter(alpha: float, lightness: float) -> None:
    effect = np.full((3, 3), -1.0)
    effect[1, 1] = 8 + lightness
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    kernel = (1 - alpha) * identity + alpha * effect
    soft = ndimage.uniform_filter(IMAGE, (5, 5, 1))
    expected = ndimage.correlate(soft.astype(float), kernel[:, :, None], mode="mirror").clip(0, 255)
    picture = Picture.from_array(soft)
    view = alone(picture, sharpen=1.0, sharpen_alpha=(alpha, alpha), sharpen_lightness=(lightness, lightness))
    np.testing.assert_allclose(view, expected, atol=0.5 + 1e-3)


def test_blur_comes_before_noise_and_compression_after_it() -> None:
    blurred = {"blur": 1.0, "blur_sigma": (3.0, 3.0), "blur_kernel": (9, 9)}
    noisy = {"noise": 1.0, "noise_variance": (30, 30)}
    assert alone(grey(128), **noisy, **blurred).var() == pytest.approx(power(30**0.5), rel=0.1)
    assert alone(grey(128), **noisy, jpeg=1.0, jpeg_quality=(1, 1)).var() < 5


def test_views_are_the_views_of_their_seeds() -> None:
    augment = Augment(FINETUNE, SIZE)
    views = augment.views(PICTURE, [3, 1, 3])
    np.testing.assert_array_equal(views, [augment(PICTURE, seed) for seed in (3, 1, 3)])
    assert len({view.tobytes() for view in augment.views(PICTURE, range(50))}) == 50
    assert augment.views(PICTURE, []).shape == (0, SIZE, SIZE, 3)


def crops(image: NDArray[np.uint8]) -> list[bytes]:
    """All windows of SIZE × SIZE."""
    height, width, _ = image.shape
    corners = product(range(height - SIZE + 1), range(width - SIZE + 1))
    return [image[top : top + SIZE, left : left + SIZE].tobytes() for top, left in corners]


@pytest.mark.parametrize("sides", [(90, 70), (30, 40), (48, 48)])
def test_shorter_side_is_torchvisions_resize_of_a_pil_image(sides: tuple[int, int]) -> None:
    image = pixels(*sides)
    resized = np.asarray(resize(Image.fromarray(image), [50]))
    augment = Augment(replace(PLAIN, shorter_side=50), SIZE)
    assert augment(Picture.from_array(image), 0).tobytes() in crops(resized)
    np.testing.assert_array_equal(
        augment.views(Picture.from_array(image), [0])[0], augment(Picture.from_array(image), 0)
    )


@pytest.mark.parametrize("degrade", ["image", "resized"])
def test_a_whole_image_is_degraded_before_it_is_cropped(degrade: str) -> None:
    image = pixels(90, 70)
    settings = replace(PLAIN, jpeg=1.0, jpeg_quality=(5, 5), shorter_side=50, degrade=degrade)
    whole = image if degrade == "image" else np.asarray(resize(Image.fromarray(image), [50]))
    whole = recompress(whole, "JPEG", 5)
    expected = whole if degrade == "resized" else np.asarray(resize(Image.fromarray(whole), [50]))
    assert Augment(settings, SIZE)(Picture.from_array(image), 0).tobytes() in crops(expected)


WHOLE = replace(ALL, crop=(1.0, 1.0), shorter_side=4, degrade="resized")


@pytest.mark.parametrize(
    "settings",
    [ALL, PRETRAIN, PLAIN, WHOLE, replace(WHOLE, degrade="image")],
    ids=["all", "pretrain", "plain", "resized", "image"],
)
@pytest.mark.parametrize("sides", [(1, 1), (1, 3000), (3000, 1), (30, 20), (700, 900)])
def test_picture_of_any_size_gives_a_view(settings: Augmentation, sides: tuple[int, int]) -> None:
    picture = Picture.from_array(pixels(*sides))
    for size in (1, 2, 7, 32):
        view = Augment(settings, size)(picture, 4)
        assert (view.shape, view.dtype, view.flags.writeable) == ((size, size, 3), np.uint8, True)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_picture_of_any_mode_is_seen_as_rgb(mode: str) -> None:
    image = Image.fromarray(IMAGE)
    picture = Picture(image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode))
    np.testing.assert_array_equal(Augment(PLAIN, SIZE)(picture, 0), picture.array())
    expected = Augment(FINETUNE, SIZE)(Picture.from_array(picture.array()), 1)
    np.testing.assert_array_equal(Augment(FINETUNE, SIZE)(picture, 1), expected)


def test_corrupt_picture_is_an_image_error() -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        Augment(FINETUNE, SIZE)(Picture.open(file.getvalue()[:-400]), 0)


def test_settings_are_what_yaml_says() -> None:
    assert msgspec.convert({}, Augmentation) == FINETUNE
    content = {"crop": [1, 1], "jpeg": 0, "jpeg_quality": [30, 90], "interpolation": "bicubic", "antialias": True}
    settings = msgspec.convert(content, Augmentation)
    assert settings.crop == (1.0, 1.0)
    assert (settings.jpeg, settings.jpeg_quality) == (0.0, (30, 90))
    assert (settings.interpolation, settings.antialias) == ("bicubic", True)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"jpeg": 1.5}, "<= 1.0"),
        ({"crop": [0, 1]}, "> 0.0"),
        ({"jpeg_quality": [0, 90]}, ">= 1"),
        ({"jpeg_quality": [90, 30]}, "jpeg_quality goes from 90 to 30; put the lower value first"),
        ({"blur_kernel": [3, 8]}, "blur_kernel goes from 3 to 8; both must be odd"),
        ({"hue": [-0.7, 0]}, ">= -0.5"),
        ({"interpolation": "nearest"}, "Invalid enum value 'nearest'"),
    ],
)
def test_setting_out_of_range_is_an_error(content: dict[str, object], error: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=error):
        msgspec.convert(content, Augmentation)
