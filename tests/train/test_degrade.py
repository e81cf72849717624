"""Degradations against Pillow's files, SciPy's filters, torch's resampling and the statistics of noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from spai_runtime.errors import ImageError
from spai_train.data.degrade import Codec, add_noise, blur, gaussian_kernel, recompress, rescale
from tests.support.images import pixels

SIZES = [(1, 1), (1, 40), (40, 1), (2, 3), (37, 50)]


@pytest.mark.parametrize("codec", ["JPEG", "WEBP"])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_compression_is_that_of_a_file(codec: Codec, quality: int, tmp_path: Path) -> None:
    image, path = pixels(37, 50), tmp_path / f"image.{codec.lower()}"
    Image.fromarray(image).save(path, quality=quality)
    compressed = recompress(image, codec, quality)
    np.testing.assert_array_equal(compressed, np.asarray(Image.open(path).convert("RGB")))
    assert compressed.flags.writeable


def test_lower_quality_loses_more() -> None:
    image = pixels(64, 64)
    for codec in ("JPEG", "WEBP"):
        losses = [np.abs(recompress(image, codec, quality) - image.astype(int)).mean() for quality in (5, 50, 100)]
        assert losses[0] > losses[1] > losses[2] > 0


@pytest.mark.parametrize(("codec", "width"), [("JPEG", 65_536), ("WEBP", 16_384)])
def test_image_larger_than_its_format_is_an_error(codec: Codec, width: int) -> None:
    with pytest.raises(ImageError, match=f"^{width}×1 pixels cannot be written as {codec}: "):
        recompress(np.zeros((1, width, 3), np.uint8), codec, 90)


def test_small_kernels_are_those_that_opencv_tabulates() -> None:
    """`cv2.getGaussianKernel(size, 0)`: binomial for 3 and 5."""
    assert gaussian_kernel(1).tolist() == [1]
    assert gaussian_kernel(3).tolist() == [0.25, 0.5, 0.25]
    assert gaussian_kernel(5).tolist() == [0.0625, 0.25, 0.375, 0.25, 0.0625]
    assert gaussian_kernel(7).tolist() == [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125]
    assert gaussian_kernel(9)[4:].tolist() == [0.234375, 0.19921875, 0.1171875, 0.05078125, 0.015625]


@pytest.mark.parametrize(("size", "sigma", "meant"), [(11, None, 2.0), (21, None, 3.5), (9, 0.5, 0.5), (3, 2.0, 2.0)])
def test_other_kernels_are_those_of_scipy(size: int, sigma: float | None, meant: float) -> None:
    impulse = np.zeros(size)
    impulse[size // 2] = 1
    expected = ndimage.gaussian_filter1d(impulse, meant, mode="constant", radius=size // 2)
    np.testing.assert_allclose(gaussian_kernel(size, sigma), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_blur_is_the_two_dimensional_filter_with_mirrored_edges(shape: tuple[int, int], size: int) -> None:
    image, kernel = pixels(*shape), gaussian_kernel(size).astype(float)
    expected = ndimage.correlate(image.astype(float), np.outer(kernel, kernel)[:, :, None], mode="mirror")
    np.testing.assert_array_equal(blur(image, gaussian_kernel(size)), np.floor(expected + 0.5))


# What A.GaussNoise of albumentations 1.4.14 adds to 480,000 values of 128: the mean square of its noise, by variance.
ALBUMENTATIONS = {1: 0.4689, 10: 7.785, 25: 21.304, 30: 26.030, 50: 44.630, 400: 384.86}


@pytest.mark.parametrize("variance", ALBUMENTATIONS)
def test_noise_has_the_power_that_upstreams_has(variance: int) -> None:
    grey = np.full((400, 400, 3), 128, np.uint8)
    noise = add_noise(grey, variance**0.5, np.random.default_rng(0)).astype(float) - 128
    spread = 5 * np.sqrt(2 * 2 / noise.size)  # of two such measurements
    assert np.mean(noise**2) == pytest.approx(ALBUMENTATIONS[variance], rel=spread)
    assert abs(noise.mean()) < 5 * (variance / noise.size) ** 0.5
    correlation = np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 5 / 400


def test_noise_is_a_normal_distribution_cut_towards_zero() -> None:
    grey = np.full((400, 400, 3), 128, np.uint8)
    noise = add_noise(grey, 3.0, np.random.default_rng(0)).astype(int) - 128
    above = [stats.norm.sf(level / 3.0) for level in range(8)]
    shares = [1 - 2 * above[1], *(above[level] - above[level + 1] for level in range(1, 7))]
    for level, share in enumerate(shares):
        spread = 5 * np.sqrt(share / noise.size)
        assert np.mean(noise == level) == pytest.approx(share, abs=spread)
        assert np.mean(noise == -level) == pytest.approx(share, abs=spread)


def test_noise_is_clipped_not_wrapped() -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    noisy = add_noise(black, 10.0, np.random.default_rng(0))
    assert noisy.max() < 100
    assert np.mean(noisy == 0) == pytest.approx(0.54, abs=0.01)  # P(10·z < 1)
    assert add_noise(255 - black, 10.0, np.random.default_rng(0)).min() > 155


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("factor", [0.1, 0.33, 0.5, 0.75, 1.3, 2, 3.7])
def test_rescaling_is_torch_without_antialiasing(shape: tuple[int, int], factor: float) -> None:
    image = pixels(*shape)
    scaled = rescale(image, factor)
    sides = [max(1, int(side * factor)) for side in shape]
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, sides, mode="bilinear", align_corners=False, antialias=False)
    assert scaled.shape == (*sides, 3)
    np.testing.assert_allclose(scaled, expected[0].permute(1, 2, 0), atol=0.5 + 1e-3)


def test_factor_of_one_changes_nothing() -> None:
    image = pixels(37, 50)
    np.testing.assert_array_equal(rescale(image, 1.0), image)
