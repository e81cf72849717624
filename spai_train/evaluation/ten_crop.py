"""Ten crops of an image, each scored as an image of its own, as upstream tests models of one view."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.detector import Detector
from spai_runtime.engines.base import Engine, HostEngine
from spai_runtime.errors import UserError
from spai_runtime.views import TenCrop


class Reduction(StrEnum):
    """How the image's logit follows from those of its crops (upstream TEST.VIEWS_REDUCTION_APPROACH)."""

    MEAN = "mean"
    MAX = "max"


def with_ten_crops(detector: Detector, reduction: Reduction) -> Detector:
    """The detector as it looks at ten crops of its own views' size; it shares the engines, so close one of the two.

    The detector resizes an image as before; a shorter side is padded with zeros, as upstream does.

    :raises UserError: the detector's views are no squares of one size
    """
    manifest, (height, width) = detector.manifest, detector.manifest.views.shape
    if height is None or height != width:
        raise UserError(f"{manifest.name} looks at views that are no squares of one size: leave --ten-crop out")
    views = TenCrop(height, manifest.views.resize, "zero")
    head = EachAlone(detector.head, reduction)
    return Detector(
        replace(manifest, views=views, attention=False), detector.encoder, head, detector.threshold, detector.artifact
    )


class EachAlone(HostEngine):
    """A head that is given each view of an image as an image, and gives the mean or the largest of their logits.

    :param head: (B, V, D) → logit (B, 1), and perhaps more
    """

    def __init__(self, head: Engine, reduction: Reduction) -> None:
        self.device, self.label, self.batch_size = head.device, head.label, head.batch_size
        self._head, self._reduction = head, reduction

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """:param batch: (B, V, D)
        :returns: logit (B, 1)
        """
        return self.run_all([batch])[0]

    def run_all(self, batches: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """See `Engine`; the head is given all views of all images before the first is waited for."""
        views = [view[None, None] for batch in batches for image in batch for view in image]  # each (1, 1, D)
        logits = iter([float(outputs[0][0, 0]) for outputs in self._head.run_all(views)])
        return [[self._reduced(logits, *batch.shape[:2])] for batch in batches]

    def _reduced(self, logits: Iterator[float], images: int, views: int) -> NDArray[np.float32]:
        found = np.array([[next(logits) for _ in range(views)] for _ in range(images)])
        reduced: NDArray[np.float64] = found.mean(axis=1) if self._reduction is Reduction.MEAN else found.max(axis=1)
        return reduced[:, None].astype(np.float32)  # (B, 1)

    def close(self) -> None:
        """See `Engine`."""
        self._head.close()
