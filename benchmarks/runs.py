"""What `spai-run` does with a folder, and its encoder alone on the same views, which were cropped beforehand."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import score_items

Views = list[NDArray[np.uint8]]  # batches, (N, S, S, 3) each


def run(detectors: Detector | Sequence[Detector], items: Sequence[Item], batch: int | None = None) -> None:
    """:param batch: views that an encoder is given at once; None is what its engine is fastest with"""
    errors = [result.error for result in score_items(detectors, items, batch_size=batch) if result.error]
    assert not errors, errors[0]


def encode(detector: Detector, batches: Views) -> list[NDArray[np.float32]]:
    """The encoder alone, with as many batches under way as its engine takes. :returns: the features of each batch"""
    if detector.encoder.streams == 1:
        return [detector.encoder.run(views)[0] for views in batches]
    with ThreadPoolExecutor(detector.encoder.streams) as pool:
        return [outputs[0] for outputs in pool.map(detector.encoder.run, batches)]


def views_of(detector: Detector, items: Sequence[Item]) -> Views:
    """All views of all images, in batches as the pipeline makes them."""
    found, resize = [], detector.manifest.views.resize
    for item in items:
        picture = Picture.open(item.path).load()
        layout = detector.layout(picture.height, picture.width)
        found.append(layout.stack(picture.resized(layout.height, layout.width, resize.filter) if resize else picture))
    views, size = np.concatenate(found), detector.encoder.batch_size
    return [views[start : start + size] for start in range(0, len(views), size)]
