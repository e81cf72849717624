"""Engines of a line of NumPy, whose numbers a test can name."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import HostEngine


@dataclass
class Sums(HostEngine):
    """An engine whose features of a view are the sums of its channels."""

    device: str = "cpu"
    label: str = "sums, cpu"
    batch_size: int = 8
    batches: list[int] = field(default_factory=list)
    streams: int = 1

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        self.batches.append(len(batch))
        return [batch.sum(axis=(1, 2), dtype=np.float32)]

    def close(self) -> None:
        pass


class Mean(HostEngine):
    """A head whose logit is the mean of an image's features."""

    device = "cpu"
    label = "mean, cpu"
    batch_size = 8

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        return [batch.mean(axis=(1, 2))[:, None], np.full(batch.shape[:2], 1 / batch.shape[1], np.float32)]

    def close(self) -> None:
        pass
