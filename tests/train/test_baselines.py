"""Baselines see what they are named after, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from spai_train.data.table import Row
from spai_train.evaluation.baselines import (
    BASELINES,
    colour,
    describe,
    file_size,
    judge,
    laplacian_energy,
    radial_mean,
    radial_spectrum,
)
from spai_train.evaluation.metrics import auc
from spai_train.simulation.drawing import REAL, Sample, encode


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
def test_baseline_learns_from_its_own_trace_alone(name: str, tmp_path: Path) -> None:
    """Generated images of this test differ in one thing at a time."""

    def darker(pixels: np.ndarray) -> np.ndarray:
        return (pixels * 0.6).astype(np.uint8)

    def striped(pixels: np.ndarray) -> np.ndarray:
        stripes = 40 * np.cos(2 * np.pi * np.arange(pixels.shape[1]) / 4)[None, :, None]
        return np.clip(pixels * 0.7 + 40 + stripes, 0, 255).astype(np.uint8)

    change = darker if name in ("colour", "Laplacian energy", "file size") else striped
    rows = []
    for seed in range(120):
        label = int(seed >= 60)
        path = tmp_path / f"{seed:03d}.png"
        path.write_bytes(encode(change(noise(seed, 224)) if label else noise(seed, 224), None))
        rows.append(Row(path.name, path, label, "test" if seed % 60 >= 40 else "train", "made" if label else REAL))
    train, test = (describe([row for row in rows if row.split == split], 1) for split in ("train", "test"))
    table = judge(name, train, test, seed=0)
    assert auc(table.scores_of(0), table.scores_of(1)) > 0.9
    np.testing.assert_array_equal(judge(name, train, test, seed=0).score, table.score)
    assert ((table.score > 0.5) == (table.logit > 0)).all()


def test_an_image_that_cannot_be_read_is_an_error_in_its_row(tmp_path: Path) -> None:
    rows = []
    for index, content in enumerate([encode(noise(0, 40), None), b"no image", encode(noise(1, 30)[:1, :1], None)]):
        path = tmp_path / f"{index}.png"
        path.write_bytes(content)
        rows.append(Row(path.name, path, index % 2, "", "any"))
    described = describe(rows, 1)
    assert [bool(error) for error in described.errors] == [False, True, False]
    for name, features in described.features.items():
        assert np.isnan(features[1]).all(), name
        assert len(features) == 3
