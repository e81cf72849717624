"""Torch against the exported graphs, as the runtime loads them: does a detector compute what its checkpoint does?"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spai_export.onnx import ExportError
from spai_runtime.detector import Detector
from spai_train.models.spai import SPAI

BATCH_SIZES = (1, 2, 3, 5, 8)  # 1 is the size that exporters specialise by mistake
IMAGE_VIEWS = (1, 4, 5, 13)


@dataclass(frozen=True)
class Differences:
    """Largest absolute differences."""

    features: float
    logit: float
    attention: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.1e}" for name, value in asdict(self).items())


TOLERANCE = Differences(features=1e-4, logit=1e-4, attention=1e-5)  # fp32; the parity that DESIGN asks for


def verify(model: SPAI, directory: Path) -> Differences:
    """Runs both on the same views, in batches of several sizes.

    :param model: in eval mode
    :param directory: an exported one
    :returns: the largest differences found
    :raises ExportError: one of them is above TOLERANCE
    """
    with Detector.load(directory, device="cpu") as detector, torch.inference_mode():
        size, worst = detector.manifest.views.size, []
        for count in BATCH_SIZES:
            views = sample_views(count, size)
            expected = model.encoder(torch.from_numpy(views)).numpy()
            worst.append(_largest(detector.encoder.run(views)[0], expected))
        features = model.encoder(torch.from_numpy(sample_views(max(IMAGE_VIEWS), size)))
        heads = [_head(model, detector, features[:count]) for count in IMAGE_VIEWS]
    found = Differences(max(worst), *(max(values) for values in zip(*heads, strict=True)))
    for name, value in asdict(found).items():
        if not value <= asdict(TOLERANCE)[name]:  # also where it is NaN
            raise ExportError(f"the exported graphs differ from the checkpoint: {found}; tolerated: {TOLERANCE}")
    return found


def sample_views(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size, 3) uint8 from a fixed seed: ramps, noise, and noise on ramps, in turn."""
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(size), np.arange(size))[None, :, :, None] * 128 / size
    noise = random.uniform(0, 255, (count, size, size, 3))
    share = (np.arange(count) % 3 / 2)[:, None, None, None]
    return (noise * share + ramp * (1 - share)).clip(0, 255).astype(np.uint8)


def _head(model: SPAI, detector: Detector, features: torch.Tensor) -> tuple[float, float]:
    """Differences of logit and attention, for a batch of two images."""
    images = torch.stack((features, features.flip(0)))
    results = zip(detector.head.run(images.numpy()), model.head(images), strict=True)
    logit, attention = (_largest(found, expected.numpy()) for found, expected in results)
    return logit, attention


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"the exported graph gives {found.shape} where the checkpoint gives {expected.shape}")
    return float(np.abs(found - expected).max())
