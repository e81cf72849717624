"""The child's side of decoding apart: one image after the other, each within its own limits."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from spai_runtime.child import Limits
from spai_runtime.child.message import Array
from spai_runtime.child.process import Answer, Handler
from spai_runtime.errors import ImageError
from spai_runtime.images import modes
from spai_runtime.images.opening import as_image_error, opened


def decoder(_settings: Any) -> Handler:
    """See `Service`. The requests are an image to decode, bands of its rows, and None to release the image."""
    return _Decoder().answer


class _Decoder:
    def __init__(self) -> None:
        self._image: Image.Image | None = None

    def answer(self, body: Any, arrays: Sequence[Array]) -> Answer:
        """See `Handler`."""
        if isinstance(body, dict):
            self._image = _decoded(arrays[0].tobytes(), **body)
            return None, ()
        if body is None:
            self._image = None
            return None, ()
        assert self._image is not None, "nothing is decoded"
        top, bottom = body
        return None, [np.asarray(self._image.crop((0, top, self._image.width, bottom)))]


def _decoded(
    content: bytes,
    *,
    is_path: bool,
    format: str,  # noqa: A002  Pillow's word
    size: list[int],
    mode: str,
    most_pixels: int | None,
    cpu_seconds: float,
    memory: int,
) -> Image.Image:
    """Decode an image. :param format, size, mode: as the parent has read them in the header"""
    limits = Limits(memory, cpu_seconds, seconds=0)
    limits.hold()
    limits.arm()
    Image.MAX_IMAGE_PIXELS = most_pixels
    with as_image_error([format]):
        image = opened(os.fsdecode(content) if is_path else content, [format])
        if [*image.size] != size or image.mode != mode:
            raise ImageError("it has changed since its header was read")
        image.load()
        return modes.as_plain(image)
