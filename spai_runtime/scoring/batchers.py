"""The choice of the batcher that gathers an encoder's views; and a way for one image through an encoder."""

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

    :param shape: height and width of a view; None if every image has its own
    :param batch_size: number of views in a batch; None is the number with which the engine is fastest
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
    """Encode one image alone, in the smallest batches that hold its views, or in as many as the engine runs together.

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
    """The size of an image's batches if nothing else runs."""
    size = min(encoder.batch_size, math.ceil(views / encoder.streams))
    if encoder.as_device_engine is None:
        return size
    return next(bucket for bucket in buckets(encoder.batch_size) if bucket >= size)
