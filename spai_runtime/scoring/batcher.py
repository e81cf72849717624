"""Batchers gather the views of many images into full batches for one encoder."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spai_runtime.closing import Closing
from spai_runtime.engines.base import DeviceLostError, Engine
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import Allocate
from spai_runtime.views import Window


class Batcher(Closing, Protocol):
    """Gathers the views of many encodings into batches. Use it in a `with`, or `close` it.

    One thread calls it; other threads decode images ahead of it.
    """

    @property
    def allocate(self) -> Allocate | None:
        """What allocates the memory for an image's pixels; None if Pillow's own memory will do."""

    def ready(self) -> None:
        """Make what batches need before many images come; otherwise it is made when it is needed.

        :raises EngineError: the encoder takes no batches of that size
        """

    def add(self, encoding: Encoding) -> None:
        """Take all views of an image that is decoded; batches run as they become full."""

    def advance(self) -> bool:
        """Wait for the oldest batch and take its features; False if no batch that runs holds pixels."""

    def flush(self) -> None:
        """Run the views that are left; afterwards every encoding that was added is done."""

    def close(self) -> None:
        """Release what it holds, also encodings that are not done."""


class HostBatcher(Batcher):
    """Crops views into one reused buffer and runs the encoder whenever it is full.

    :param shape: height and width of a view
    :param batch_size: number of views in a full batch
    :raises EngineError: there is no memory for that many
    """

    allocate: Allocate | None = None

    def __init__(self, encoder: Engine, shape: tuple[int, int], batch_size: int) -> None:
        self._encoder = encoder
        self._buffer = batch_buffer(batch_size, shape)
        self._views: list[tuple[Encoding, int]] = []  # whose view lies at each place of the buffer

    def ready(self) -> None:
        """See `Batcher`. Nothing more is needed."""

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`. The pixels are not needed afterwards, though some views may wait in the buffer."""
        layout, picture = encoding.layout, encoding.plane.picture
        assert picture is not None, "not decoded"
        for index in range(len(layout)):
            layout.crop(picture, index, self._buffer[len(self._views)])
            self._views.append((encoding, index))
            if len(self._views) == len(self._buffer):
                self.flush()
        encoding.release()

    def advance(self) -> bool:
        """See `Batcher`. Every batch has ended when `add` returns."""
        return False

    def flush(self) -> None:
        """See `Batcher`."""
        if not self._views:
            return
        (features,) = self._encoder.run(self._buffer[: len(self._views)])
        for (encoding, index), row in zip(self._views, features, strict=True):
            encoding.receive(index, row)
        self._views.clear()

    def close(self) -> None:
        """See `Batcher`. It holds no pixels but those in its buffer."""


class WholeImageBatcher(Batcher):
    """Runs an encoder whose views are of any size, one image at a time: images of two sizes make no batch."""

    allocate: Allocate | None = None

    def __init__(self, encoder: Engine) -> None:
        self._encoder = encoder

    def ready(self) -> None:
        """See `Batcher`. Nothing is needed."""

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`. When it returns, the features are there, or the reason why an image of this size has none."""
        layout, picture = encoding.layout, encoding.plane.picture
        assert picture is not None, "not decoded"
        try:
            if layout.window is None:
                views = layout.stack(picture)
                encoding.release()
                (features,) = self._encoder.run(views)[0]
            else:
                features = self._in_windows(picture, layout.window, encoding.width)
                encoding.release()
        except DeviceLostError:
            raise
        except EngineError as error:
            encoding.fail(str(error))
        else:
            encoding.receive(0, features)

    def advance(self) -> bool:
        """See `Batcher`. Nothing runs."""
        return False

    def flush(self) -> None:
        """See `Batcher`. Nothing is left."""

    def close(self) -> None:
        """See `Batcher`. It holds nothing."""

    def _in_windows(self, picture: Picture, window: Window, width: int) -> NDArray[np.float32]:
        """The mean over the cells of the whole image, (D,), computed window by window."""
        total = np.zeros(width, np.float64)
        for down, across in window.pieces(picture.height, picture.width):
            views = picture.crop(down.start, across.start, down.stop, across.stop)[None].copy()  # torch takes no others
            (patches,) = self._encoder.run(views)
            patches = patches.reshape(*window.grid(*views.shape[1:3]), -1)[down.kept, across.kept]
            total += patches.sum(axis=(0, 1), dtype=np.float64)
        return (total * window.share(picture.height, picture.width)).astype(np.float32)


def batch_buffer(batch_size: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A buffer (batch_size, H, W, 3), not initialised. :raises EngineError: there is no memory for it"""
    try:
        return np.empty((batch_size, *shape, 3), np.uint8)
    except (MemoryError, OverflowError, ValueError) as error:  # what NumPy raises of sizes beyond 64 bits
        raise EngineError(f"there is no memory for {batch_size} views at once: give a smaller --batch-size") from error
