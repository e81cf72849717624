"""Trivial detectors: what colour, sharpness, file size or the radial spectrum alone give away.

A detector that they match has learned no more than they see. Each is a handful of numbers an image and a boosted
classifier. Axes: B images, D features, H W pixels.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from spai_train.data import Image
from spai_train.data.simulate import Sample

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SPECTRUM_SIDE = 224  # pixels: the window from which the radial spectrum is taken
Features = NDArray[np.float64]


def colour(sample: Sample) -> Features:
    """Mean and standard deviation of R, G, B in [0, 1], and their three correlations: (9,)"""
    pixels = sample.pixels().reshape(-1, 3) / 255
    correlations = np.asarray(np.corrcoef(pixels.T))[np.triu_indices(3, 1)]
    return np.concatenate((pixels.mean(axis=0), pixels.std(axis=0), correlations))


def laplacian_energy(sample: Sample) -> Features:
    """Logarithm of the variance of the brightness's Laplacian: (1,)"""
    y = brightness(sample.pixels())
    laplacian = 4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
    return np.log([laplacian.var() + 1e-8])


def file_size(sample: Sample) -> Features:
    """Bytes a pixel, and whether the file is a JPEG: (2,)"""
    height, width, _ = sample.pixels().shape
    return np.array([len(sample.content) / (height * width), sample.suffix == ".jpg"])


def radial_spectrum(sample: Sample) -> Features:
    """Log power of the brightness by distance from DC, of a Hann window in the centre: (SPECTRUM_SIDE / 2,)"""
    y = brightness(sample.pixels())
    top, left = (max(0, side - SPECTRUM_SIDE) // 2 for side in y.shape)
    y = y[top : top + SPECTRUM_SIDE, left : left + SPECTRUM_SIDE]
    window = np.hanning(y.shape[0])[:, None] * np.hanning(y.shape[1])
    spectrum = np.fft.fft2((y - y.mean()) * window, s=(SPECTRUM_SIDE, SPECTRUM_SIDE))  # zeros fill a smaller image
    return np.log(radial_mean(np.abs(spectrum) ** 2) + 1e-8)


BASELINES: dict[str, Callable[[Sample], Features]] = {
    "colour": colour,
    "Laplacian energy": laplacian_energy,
    "file size": file_size,
    "radial spectrum": radial_spectrum,
}


class Baseline:
    """A boosted classifier on one kind of features.

    :param name: a key of BASELINES
    """

    def __init__(self, name: str, seed: int) -> None:
        self.describe = BASELINES[name]
        self.classifier = HistGradientBoostingClassifier(random_state=seed)

    def fit(self, samples: Sequence[Sample], labels: ArrayLike) -> "Baseline":
        """:param labels: (B,), 1 for generated"""
        self.classifier.fit(self._features(samples), np.asarray(labels))
        return self

    def scores(self, samples: Sequence[Sample]) -> Features:
        """Probability of being generated: (B,)"""
        probabilities: Features = self.classifier.predict_proba(self._features(samples))
        return probabilities[:, 1]

    def _features(self, samples: Sequence[Sample]) -> Features:
        return np.stack([self.describe(sample) for sample in samples])  # (B, D)


def brightness(pixels: Image) -> Features:
    """(H, W, 3) uint8 → (H, W) in [0, 1]"""
    y: Features = pixels @ np.array(LUMA) / 255
    return y


def radial_mean(power: Features) -> Features:
    """Mean over rings one sample wide: (S, S) in fft order → (S / 2,), DC first."""
    size = len(power)
    frequency = np.fft.fftfreq(size, 1 / size)
    ring = np.hypot(frequency[:, None], frequency[None, :]).astype(int).ravel()
    total = np.bincount(ring, power.ravel())[: size // 2]
    mean: Features = total / np.bincount(ring)[: size // 2]
    return mean
