"""Embeddings of images: what a detector's head sees of each, by the very pipeline that scores images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from spai_runtime.cli.progress import shown
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import score_items
from spai_train.data.stores import FILES, Store
from spai_train.data.table import Row
from spai_train.detectors import find
from spai_train.detectors.spec import DetectorModel, DetectorSpec
from spai_train.memory import BatchLimit
from spai_train.torch_engine import TorchEngine, as_detector


@dataclass(frozen=True)
class Embedded:
    """An image, and its embedding (E,) or why it has none."""

    row: Row
    embedding: NDArray[np.float32] | None
    error: str = ""


class EmbeddingHead(nn.Module):
    """A head that gives an image's embedding (1, E) in the place of the attention, which goes with the image."""

    def __init__(self, spec: DetectorSpec, head: nn.Module) -> None:
        super().__init__()
        self.spec, self.head = spec, head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """:param features: (1, V, D)"""
        logit = self.head(features)
        return logit[0] if self.spec.attention else logit, self.spec.embed(self.head, features)


def embeddings(
    model: DetectorModel,
    rows: Sequence[Row],
    device: str,
    *,
    store: Store = FILES,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Embedded]:
    """The embedding of each image, in the order of the rows; progress is shown on a terminal.

    :param model: the model, in eval mode and on the device
    :param store: the store that holds the images
    :param batch_size: views that the encoder is given at once; None takes what suits the device
    :param workers: decoding threads
    """
    detector = as_detector(model, device=device, limit=BatchLimit(batch_size))
    detector.head = TorchEngine(EmbeddingHead(find(model.detector), model.head), device)

    def opened(item: Item) -> Picture:
        return Picture.open(store.source(rows[int(item.name)]))

    items = (Item(row.path, str(index)) for index, row in enumerate(rows))
    results = score_items(detector, items, workers=workers, open_item=opened)
    for row, result in zip(rows, shown(results, len(rows)), strict=True):
        yield Embedded(row, None if result.score is None else result.score.attention, result.error)
