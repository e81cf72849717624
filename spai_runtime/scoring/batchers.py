"""Which batcher gathers the views of an encoder, and one image through it."""

import math

from spai_runtime.engines.base import Engine, buckets
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest
from spai_runtime.scoring.batcher import Batcher, HostBatcher, WholeImageBatcher
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import ImageState
from spai_runtime.scoring.stream_batcher import StreamBatcher
from spai_runtime.views import ViewShape


def batcher_of(encoder: Engine, shape: ViewShape, batch_size: int | None = None) -> Batcher:
    """The batcher that suits a detector's views and the engine of its encoder.

    :param shape: height and width of a view, None where every image has its own
    :param batch_size: views; None is what the engine is fastest with
    """
    height, width = shape
    batch_size = batch_size or encoder.batch_size
    if height is None or width is None:
        return WholeImageBatcher(encoder)
    if encoder.as_device_engine is not None:
        from spai_runtime.scoring.device_batcher import DeviceBatcher  # noqa: PLC0415  for GPUs alone

        return DeviceBatcher(encoder.as_device_engine, batch_size)
    if encoder.streams > 1:
        return StreamBatcher(encoder, (height, width), batch_size)
    return HostBatcher(encoder, (height, width), batch_size)


def encode(encoder: Engine, manifest: Manifest, picture: Picture) -> Encoding:
    """One image alone, in the smallest batches that hold its views, or as many as the engine runs at the same time.

    :raises ImageError: it cannot be decoded, or would be too large
    """
    layout, image = manifest.layout(picture.height, picture.width), ImageState()
    with batcher_of(encoder, manifest.views.shape, _batch_size(encoder, len(layout))) as batcher:
        plane = image.use(manifest.views.resize, layout.height, layout.width, batcher.allocate)
        encoding = Encoding(image, plane, layout, manifest.features)
        image.decode(picture, None)
        batcher.add(encoding)
        batcher.flush()
    return encoding


def _batch_size(encoder: Engine, views: int) -> int:
    """Of an image's batches, when nothing else runs."""
    size = min(encoder.batch_size, math.ceil(views / encoder.streams))
    if encoder.as_device_engine is None:
        return size
    return next(bucket for bucket in buckets(encoder.batch_size) if bucket >= size)
