"""A batcher that runs several batches at a time through an engine on the CPU, each in a thread of its own."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Array, Engine
from spai_runtime.scoring.batcher import Batcher, batch_buffer
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import Allocate

BATCHES_OF_A_STREAM = 2  # one runs while the next is full and waits: batches do not end in their order


@dataclass(eq=False)
class _Batch:
    """A batch. :param pixels: the buffer that views are cropped into, (batch size, H, W, 3)"""

    pixels: NDArray[np.uint8]
    views: list[tuple[Encoding, int]] = field(default_factory=list)  # whose view lies at each place

    @property
    def full(self) -> bool:
        return len(self.views) == len(self.pixels)

    @property
    def filled(self) -> NDArray[np.uint8]:
        return self.pixels[: len(self.views)]


class StreamBatcher(Batcher):
    """Crops views into reused buffers, and has the encoder run as many batches at once as it has streams.

    `add` waits only if BATCHES_OF_A_STREAM batches are under way for each stream. Features are taken in the order of
    the batches: if one fails, those before it have ended, as if they had run one by one.

    :param shape: height and width of a view
    :param batch_size: number of views in a full batch
    :raises EngineError: from `add` and `flush`: a batch failed, or there is no memory for that many views
    """

    allocate: Allocate | None = None

    def __init__(self, encoder: Engine, shape: tuple[int, int], batch_size: int) -> None:
        self._encoder, self._shape, self._batch_size = encoder, shape, batch_size
        self._pool = ThreadPoolExecutor(encoder.streams, thread_name_prefix="encode")
        self._most = BATCHES_OF_A_STREAM * encoder.streams
        self._filling: _Batch | None = None
        self._running: deque[tuple[_Batch, Future[list[Array]]]] = deque()  # the oldest first
        self._idle = [self._new_batch()]

    def ready(self) -> None:
        """See `Batcher`. Nothing more is needed."""

    def add(self, encoding: Encoding) -> None:
        """See `Batcher`. The pixels are not needed afterwards, though some views may wait in a buffer."""
        layout, picture = encoding.layout, encoding.plane.picture
        assert picture is not None, "not decoded"
        for index in range(len(layout)):
            batch = self._filling = self._filling or self._free_batch()
            layout.crop(picture, index, batch.pixels[len(batch.views)])
            batch.views.append((encoding, index))
            if batch.full:
                self._launch()
        encoding.release()
        while self._running and self._running[0][1].done():
            self._receive()

    def advance(self) -> bool:
        """See `Batcher`. Batches that run hold nothing but their buffers."""
        return False

    def flush(self) -> None:
        """See `Batcher`."""
        self._launch()
        while self._running:
            self._receive()

    def close(self) -> None:
        """See `Batcher`. It waits for the batches that run, because the engine reads their buffers."""
        self._pool.shutdown(cancel_futures=True)
        self._running.clear()
        self._idle.clear()
        self._filling = None

    def _launch(self) -> None:
        if self._filling is not None:
            self._running.append((self._filling, self._pool.submit(self._encoder.run, self._filling.filled)))
            self._filling = None

    def _free_batch(self) -> _Batch:
        """A batch that is idle or new, or the oldest batch once it is done."""
        if not self._idle and len(self._running) < self._most:
            return self._new_batch()
        if not self._idle:
            self._receive()
        return self._idle.pop()

    def _receive(self) -> None:
        """Wait for the oldest batch, and take its features."""
        batch, ran = self._running.popleft()
        (features,) = ran.result()
        for (encoding, index), row in zip(batch.views, features, strict=True):
            encoding.receive(index, row)
        batch.views.clear()
        self._idle.append(batch)

    def _new_batch(self) -> _Batch:
        return _Batch(batch_buffer(self._batch_size, self._shape))
