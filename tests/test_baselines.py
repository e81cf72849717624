"""Baselines see what they are named after, and nothing else."""

import numpy as np
import pytest

from spai_train.baselines import BASELINES, Baseline, colour, file_size, laplacian_energy, radial_mean, radial_spectrum
from spai_train.data.simulate import REAL, Sample, encode
from spai_train.metrics import auc


def sample(pixels: np.ndarray, source: str = REAL, quality: int | None = None) -> Sample:
    return Sample(encode(pixels, quality), source)


def noise(seed: int, size: int = 232) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def test_colour_is_means_deviations_and_correlations() -> None:
    pixels = noise(0)
    pixels[..., 1] = pixels[..., 0]
    features = colour(sample(pixels))
    np.testing.assert_allclose(features[:3], pixels.mean(axis=(0, 1)) / 255)
    np.testing.assert_allclose(features[3:6], pixels.std(axis=(0, 1)) / 255)
    assert features[6] == pytest.approx(1)
    np.testing.assert_allclose(features[7:], 0, atol=0.02)


def test_laplacian_energy_of_white_noise_is_twenty_times_its_variance() -> None:
    """The kernel's squares sum to 4² + 4·1² = 20."""
    grey = np.repeat(noise(0)[..., :1], 3, axis=2)
    expected = np.log(20 * (grey[..., 0] / 255.0).var())
    assert laplacian_energy(sample(grey))[0] == pytest.approx(expected, abs=0.02)


def test_file_size_is_bytes_a_pixel() -> None:
    pixels = noise(0, 100)
    for quality, is_jpeg in ((None, 0), (80, 1)):
        one = sample(pixels, quality=quality)
        np.testing.assert_allclose(file_size(one), (len(one.content) / 10_000, is_jpeg))


def test_radial_spectrum_peaks_at_the_period_of_a_grating() -> None:
    wave = 127 + 100 * np.sin(2 * np.pi * np.arange(224) / 8)
    pixels = np.broadcast_to(wave[None, :, None], (224, 224, 3)).astype(np.uint8)
    assert radial_spectrum(sample(pixels)).argmax() == 224 / 8
    assert len(radial_spectrum(sample(noise(0)))) == 112


def test_radial_mean_is_the_mean_over_rings() -> None:
    power = np.random.default_rng(0).random((16, 16))
    centred = np.fft.fftshift(power)
    expected = [
        np.mean([centred[y, x] for y in range(16) for x in range(16) if ring <= np.hypot(y - 8, x - 8) < ring + 1])
        for ring in range(8)
    ]
    np.testing.assert_allclose(radial_mean(power), expected)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_learns_from_its_own_trace_alone(name: str) -> None:
    """Generated images of this test differ in one thing at a time."""

    def darker(pixels: np.ndarray) -> np.ndarray:
        return (pixels * 0.6).astype(np.uint8)

    def striped(pixels: np.ndarray) -> np.ndarray:
        stripes = 40 * np.cos(2 * np.pi * np.arange(pixels.shape[1]) / 4)[None, :, None]
        return np.clip(pixels * 0.7 + 40 + stripes, 0, 255).astype(np.uint8)

    change = darker if name in ("colour", "Laplacian energy", "file size") else striped
    real = [sample(noise(seed, 224)) for seed in range(60)]
    generated = [sample(change(noise(seed, 224)), "made") for seed in range(100, 160)]
    train, test = real[:40] + generated[:40], real[40:] + generated[40:]
    baseline = Baseline(name, seed=0).fit(train, [each.generated for each in train])
    scores = baseline.scores(test)
    assert auc(scores[:20], scores[20:]) > 0.9
    np.testing.assert_array_equal(
        scores, Baseline(name, seed=0).fit(train, [each.generated for each in train]).scores(test)
    )
