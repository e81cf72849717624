"""Scenes have the statistics that dead leaves are used for: 1/f spectra, sharp edges, determinism."""

import numpy as np
import pytest

from spai_train.evaluation.baselines import radial_mean
from spai_train.simulation.scenes import dead_leaves
from spai_train.simulation.textures import fractal, grating


def test_scene_is_linear_light_of_the_size_asked_for() -> None:
    scene = dead_leaves(np.random.default_rng(1), 120, 150)
    assert scene.shape == (120, 150, 3)
    assert scene.dtype == np.float32
    assert 0 <= scene.min() < 0.2 < scene.max() <= 1


def test_scene_follows_from_its_seed() -> None:
    first, again, other = (dead_leaves(np.random.default_rng(seed), 96, 96) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


def test_scenes_have_the_spectrum_of_natural_images() -> None:
    """Power falls as 1/f^α, α near 2 in photographs (Field 1987)."""
    window = np.hanning(192)[:, None] * np.hanning(192)
    powers = []
    for seed in range(6):
        scene = dead_leaves(np.random.default_rng(seed), 192, 192).mean(axis=2)
        powers.append(np.abs(np.fft.fft2((scene - scene.mean()) * window)) ** 2)
    radial = radial_mean(np.mean(powers, axis=0))
    frequency = np.arange(4, 64)
    slope, _ = np.polyfit(np.log(frequency), np.log(radial[4:64]), 1)
    assert -3.2 < slope < -1.5


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.4])
def test_fractal_amplitude_falls_with_its_exponent(exponent: float) -> None:
    textures = fractal(np.random.default_rng(0), 8, 128, exponent)
    assert textures.shape == (8, 128, 128)
    np.testing.assert_allclose(textures.std(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(textures.mean(axis=(1, 2)), 0, atol=1e-6)
    radial = radial_mean((np.abs(np.fft.fft2(textures)) ** 2).mean(axis=0))
    frequency = np.arange(3, 60) + 0.5  # a ring's middle
    slope, _ = np.polyfit(np.log(frequency), np.log(radial[3:60]), 1)
    assert slope == pytest.approx(-2 * exponent, abs=0.1)


def test_fractal_is_periodic() -> None:
    """The seam between two copies is no rougher than the texture."""
    texture = fractal(np.random.default_rng(0), 2, 64, 1.4)[0]
    inside = np.abs(np.diff(texture, axis=0)).mean()
    assert np.abs(texture[0] - texture[-1]).mean() < 2 * inside


def test_grating_is_one_frequency() -> None:
    y, x = np.arange(256, dtype=np.float32)[:, None], np.arange(256, dtype=np.float32)[None, :]
    for seed in range(4):
        pattern = grating(np.random.default_rng(seed), y, x)
        assert np.abs(pattern).max() <= 1.5
        window = np.hanning(256)[:, None] * np.hanning(256)
        power = np.abs(np.fft.fft2(pattern * window))[:, :129] ** 2
        row, column = np.unravel_index(power[:, 1:].argmax(), power[:, 1:].shape)
        near = power[max(0, row - 3) : row + 4, max(0, column - 2) : column + 5].sum()
        assert near > 0.3 * power.sum()
