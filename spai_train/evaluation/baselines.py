"""Trivial detectors: what colour, sharpness, file size or the radial spectrum alone give away.

A detector that they match has learned no more than they see. Each is a handful of numbers an image and a boosted
classifier. Axes: B images, D features, H W pixels.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier

from spai_runtime.errors import ImageError
from spai_runtime.images import Picture
from spai_train.data import Image
from spai_train.data.regular import read_file
from spai_train.data.table import Row
from spai_train.evaluation.protocol import Measurement, Protocol, measure
from spai_train.evaluation.scored import ScoredTable
from spai_train.simulation.drawing import Sample, worker_pool

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SPECTRUM_SIDE = 224  # pixels: the window from which the radial spectrum is taken
Features = NDArray[np.float64]


def colour(sample: Sample) -> Features:
    """The mean and standard deviation of R, G, B in [0, 1], and their three correlations: (9,)"""
    pixels = sample.pixels().reshape(-1, 3) / 255
    correlations = np.asarray(np.corrcoef(pixels.T))[np.triu_indices(3, 1)]
    return np.concatenate((pixels.mean(axis=0), pixels.std(axis=0), correlations))


def laplacian_energy(sample: Sample) -> Features:
    """The logarithm of the variance of the brightness's Laplacian: (1,)"""
    y = brightness(sample.pixels())
    laplacian = 4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
    return np.log([laplacian.var() + 1e-8])


def file_size(sample: Sample) -> Features:
    """The file's bytes per pixel, and whether it is a JPEG: (2,)"""
    height, width, _ = sample.pixels().shape
    return np.array([len(sample.content) / (height * width), sample.suffix == ".jpg"])


def radial_spectrum(sample: Sample) -> Features:
    """The log power of the brightness by distance from DC, in a Hann window at the centre: (SPECTRUM_SIDE / 2,)"""
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


@dataclass(frozen=True, eq=False)
class Described:
    """Labelled images as the baselines see them.

    :param features: the features by baseline, (B, D); NaN where the image could not be read
    :param errors: B sentences on what is wrong; "" where the image could be read
    """

    rows: tuple[Row, ...]
    features: dict[str, Features]
    errors: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(B,)"""
        return np.array([row.label for row in self.rows], np.int64)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(B,)"""
        return np.array([not error for error in self.errors], np.bool_)


def measure_baselines(
    training: Sequence[Row], test: Sequence[Row], workers: int, resamples: int, seed: int
) -> dict[str, Measurement]:
    """Trains every baseline on one table and measures it on the other, each generator against all real images."""
    seen, unseen = describe(training, workers), describe(test, workers)
    return {name: measure(judge(name, seen, unseen, seed), Protocol.POOLED, 0.5, resamples, seed) for name in BASELINES}


def describe(rows: Sequence[Row], workers: int) -> Described:
    """Computes what every baseline sees of all images.

    :param workers: how many processes compute; below 2, this one does
    """
    with worker_pool(workers) as pool:
        described = list(pool.map(_describe, rows, chunksize=16))
    features = {name: _stacked([features.get(name) for features, _ in described]) for name in BASELINES}
    return Described(tuple(rows), features, tuple(error for _, error in described))


def judge(name: str, training: Described, test: Described, seed: int) -> ScoredTable:
    """Scores the test images by a boosted classifier that has seen one kind of features of the training images.

    :param name: a key of BASELINES
    """
    known = training.readable
    classifier = HistGradientBoostingClassifier(random_state=seed)
    classifier.fit(training.features[name][known], training.labels[known])
    logits = np.where(test.readable, classifier.decision_function(test.features[name]), np.nan)
    return ScoredTable(test.rows, expit(logits), logits, logits, test.errors)


def _describe(row: Row) -> tuple[dict[str, Features], str]:
    """The features of one image by baseline; or none, and why there are none."""
    try:
        content = read_file(row.path)
        Picture.open(content).load()
    except ImageError as error:
        return {}, str(error)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # of an image without any contrast
        return {name: features(Sample(content, row.source)) for name, features in BASELINES.items()}, ""


def _stacked(features: Sequence[Features | None]) -> Features:
    """The features of all images, (B, D), with NaN for None."""
    width = max((len(row) for row in features if row is not None), default=1)
    return np.stack([np.full(width, np.nan) if row is None else row for row in features])


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
