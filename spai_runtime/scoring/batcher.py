"""Batchers: views of many images gathered into full batches of one encoder."""

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

    One thread calls it. Images are decoded by others, ahead of it.
    """

    @property
    def allocate(self) -> Allocate | None:
        """Memory that it wants an image's pixels in; None where Pillow's own will do."""

    def ready(self) -> None:
        """Makes what batches will need, for who has many images; else it is made when it is needed.

        :raises EngineError: the encoder takes no batches of that size
        """

    def add(self, encoding: Encoding) -> None:
        """Takes all views of an image that is decoded; full batches run on the way."""

    def advance(self) -> bool:
        """Takes the features of the batch that runs longest, waiting for them; False where none holds pixels."""

    def flush(self) -> None:
        """Runs what is left: every encoding that was added is done."""

    def close(self) -> None:
        """Lets go of what it holds, encodings that are not done included."""


class HostBatcher(Batcher):
    """Crops views into one reused buffer and runs the encoder whenever it is full.

    :param shape: height and width of a view
    :param batch_size: views in a full batch
    :raises EngineError: there is no memory for that many
    """

    allocate: Allocate | None = None

    def __init__(self, encoder: Engine, shape: tuple[int, int], batch_size: int) -> None:
        self._encoder = encoder
        self._buffer = batch_buffer(batch_size, shape)
        self._views: list[tuple[Encoding, int]] = []  # whose view lies at each place of the buffer

    def ready(self) -> None:
        """See `Batcher`: it needs nothing more."""

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`; pixels are not needed afterwards, though some of the views may wait in the buffer."""
        layout, picture = encoding.layout, encoding.plane.picture
        assert picture is not None, "not decoded"
        for index in range(len(layout)):
            layout.crop(picture, index, self._buffer[len(self._views)])
            self._views.append((encoding, index))
            if len(self._views) == len(self._buffer):
                self.flush()
        encoding.release()

    def advance(self) -> bool:
        """See `Batcher`: a batch has ended when `add` returns."""
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
        """See `Batcher`; it holds no pixels but those in its buffer."""


class WholeImageBatcher(Batcher):
    """Runs an encoder whose views are of any size, one image at a time: images of two sizes make no batch."""

    allocate: Allocate | None = None

    def __init__(self, encoder: Engine) -> None:
        self._encoder = encoder

    def ready(self) -> None:
        """See `Batcher`: it needs nothing."""

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`; the features are there when it returns, or why an image of this size has none."""
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
        """See `Batcher`: nothing runs."""
        return False

    def flush(self) -> None:
        """See `Batcher`: nothing is left."""

    def close(self) -> None:
        """See `Batcher`: it holds nothing."""

    def _in_windows(self, picture: Picture, window: Window, width: int) -> NDArray[np.float32]:
        """The mean over the cells of the whole image, (D,), from one window after the other."""
        total = np.zeros(width, np.float64)
        for down, across in window.pieces(picture.height, picture.width):
            views = picture.crop(down.start, across.start, down.stop, across.stop)[None].copy()  # torch takes no others
            (patches,) = self._encoder.run(views)
            patches = patches.reshape(*window.grid(*views.shape[1:3]), -1)[down.kept, across.kept]
            total += patches.sum(axis=(0, 1), dtype=np.float64)
        return (total * window.share(picture.height, picture.width)).astype(np.float32)


def batch_buffer(batch_size: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """(batch_size, H, W, 3), not initialised. :raises EngineError: there is no memory for it"""
    try:
        return np.empty((batch_size, *shape, 3), np.uint8)
    except (MemoryError, OverflowError, ValueError) as error:  # what NumPy raises of sizes beyond 64 bits
        raise EngineError(f"there is no memory for {batch_size} views at once: give a smaller --batch-size") from error
