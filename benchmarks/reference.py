"""What every contender is held against before it is timed: the encoder in torch, in fp32, on the CPU."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from spai_train.detectors.spai.model import SPAI

Tiles = NDArray[np.uint8]  # (N, S, S, 3)
Features = NDArray[np.float32]  # (N, D)

COMPARED = 8  # tiles at the start of every batch

# ‖features − reference‖ / ‖reference‖ at most; what is further off computes something else, and its time says nothing.
# ViT-B/16 with random weights has 3e-7, 1e-4 and 7e-4 in the first three on a CPU; TF32 would not pass for fp32.
TOLERANCE = {"fp32": 2e-5, "fp16": 1e-3, "bf16": 5e-3, "fp8": 0.2, "int8": 0.2}


class DisagreementError(Exception):
    """Features that are not those of the reference in that precision."""


class Reference:
    """:param model: on the CPU, in fp32, in eval mode
    :param tiles: (N, S, S, 3) uint8, of which contenders are given the first
    """

    def __init__(self, model: SPAI, tiles: Tiles) -> None:
        self._encoder, self.tiles = model.encoder, tiles

    @functools.cached_property
    def flop_per_tile(self) -> int:
        """Of matrix products and convolutions, two a multiplication."""
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self._encoder(torch.from_numpy(self.tiles[:1]))
        return int(counter.get_total_flops())

    def compare(self, features: Features, precision: str) -> dict[str, float]:
        """:param features: of a batch of the tiles, from the first on
        :returns: the largest difference, and that of the norms
        :raises DisagreementError: not finite, of another shape, or beyond TOLERANCE
        """
        expected = self._features[: len(features)]
        found = features[: len(expected)].astype(np.float64)
        if found.shape != expected.shape or not np.isfinite(features).all():
            raise DisagreementError("features are not finite, or not of the shape of the reference")
        relative = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if relative > TOLERANCE[precision]:
            raise DisagreementError(f"features are {relative:.2g} from fp32's; {TOLERANCE[precision]:g} is allowed")
        return {"largest_difference": float(np.abs(found - expected).max()), "relative_difference": relative}

    @functools.cached_property
    def _features(self) -> Features:
        with torch.inference_mode():
            features: Features = self._encoder(torch.from_numpy(self.tiles[:COMPARED])).numpy()
        return features
