"""Textures for simulated scenes: 1/f noise and sinusoidal gratings.

Axes: T textures, H W pixels. Everything is float32 with mean 0 and standard deviation near 1.
"""

import numpy as np
from numpy.typing import NDArray

from spai_train.data import Pixels

GRATING_PERIODS = (2.5, 24.0)  # pixels per cycle: from just under Nyquist to visibly coarse


def fractal(rng: np.random.Generator, count: int, size: int, exponent: float) -> Pixels:
    """Periodic noise whose amplitude spectrum falls as 1/f^exponent (natural images: near 1).

    :param count: T, even: one complex transform gives two textures, its real and its imaginary part
    :returns: (T, size, size), mean 0, standard deviation 1
    """
    assert count % 2 == 0, "textures come in pairs"
    spectrum = rng.standard_normal((count // 2, size, size)) + 1j * rng.standard_normal((count // 2, size, size))
    fields = np.fft.ifft2(spectrum * _amplitude(size, exponent))
    textures = np.concatenate((fields.real, fields.imag))
    textures /= textures.std(axis=(1, 2), keepdims=True)
    return textures.astype(np.float32)


def grating(rng: np.random.Generator, y: NDArray[np.float32], x: NDArray[np.float32]) -> Pixels:
    """A sinusoid of random period, direction and phase, clipped towards a square wave half of the time.

    :param y: row coordinates in pixels, (H, 1)
    :param x: column coordinates in pixels, (1, W)
    :returns: (H, W) in [−1.5, 1.5]
    """
    low, high = np.log(GRATING_PERIODS)
    frequency = 2 * np.pi / np.exp(rng.uniform(low, high))
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    wave = np.sin(frequency * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) + np.float32(phase))
    if rng.random() < 0.5:
        wave = np.clip(3 * wave, -1, 1)
    pattern: Pixels = (np.sqrt(2) * wave).astype(np.float32)
    return pattern


def _amplitude(size: int, exponent: float) -> NDArray[np.float64]:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    frequency[0, 0] = np.inf  # no mean
    amplitude: NDArray[np.float64] = frequency**-exponent
    return amplitude
