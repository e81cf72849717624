"""The way of a batch through one GPU: images are sent, views are cropped, the graph runs, features are fetched."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract, Crop, DeviceImage
from spai_runtime.engines.cuda.crop import COLUMNS, PADDINGS, Row, fill
from spai_runtime.engines.cuda.gpu import Gpu, import_cupy
from spai_runtime.engines.cuda.program import Program, pair, view_sizes
from spai_runtime.engines.cuda.recording import retried
from spai_runtime.errors import EngineError


class CudaImage:
    """Pixels (H, W, 3) uint8 on a GPU: a `DeviceImage`.

    :param array: a contiguous array of CuPy's
    :param ready: an event; after it the pixels are there
    :param host: the array that they are sent from, which must live as long
    """

    def __init__(self, device: str, array: Any, ready: Any, host: NDArray[np.uint8] | None = None) -> None:
        self.device, self.ready = device, ready
        self.height, self.width, _ = array.shape
        self.pointer: int = array.data.ptr
        self._owners = array, host


class CudaSlot:
    """A slot on one GPU; see `Slot`. Only one thread may use it at a time.

    :param kernel: the kernel of `crop.crop_kernel`
    :param unfinished: whether it was launched, and no later wait has succeeded
    """

    def __init__(self, gpu: Gpu, program: Program, contract: Contract, kernel: Any, capacity: int) -> None:
        cupy, shape = import_cupy(), (capacity, *view_sizes(contract))
        self.device, self.capacity, self.unfinished = gpu.device, capacity, False
        self._gpu, self._kernel = gpu, kernel
        self._held: list[CudaImage] = []  # what the stream has yet to read
        self._count, self._closed = 0, False
        with gpu:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._cropped, self._ran, self._finish = (cupy.cuda.Event(disable_timing=True) for _ in range(3))
            self._table, self._table_host = pair((capacity, COLUMNS), np.int64, self._stream)
            self._features, self._features_host = pair(contract.output_shapes(shape)[0], np.float32, self._stream)
            with self._stream:
                self._views = cupy.empty(shape, np.uint8)
            self._execution = program.execution(self._stream)  # whatever lies there now, to `prepare` it is pixels
            self._execution.prepare(shape, self._views.data.ptr, [self._features.data.ptr])

    @property
    def recorded(self) -> bool:
        """Whether a full batch, launched by this thread, runs as one CUDA graph.

        Otherwise its kernels are launched one by one, with the same result: either the graph could not be recorded, or
        ONNX Runtime recorded it for another thread.
        """
        return self._execution.recorded(self._views.shape, self._views.data.ptr, [self._features.data.ptr])

    @retried
    def upload(self, pixels: NDArray[np.uint8]) -> DeviceImage:
        """See `Slot`."""
        cupy = import_cupy()
        with self._gpu:
            with self._stream:
                array = cupy.empty(pixels.shape, np.uint8)
            array.set(pixels, stream=self._stream)
            ready = self._stream.record(cupy.cuda.Event(disable_timing=True))
            return CudaImage(self.device, array, ready, pixels)

    @retried
    def launch(self, crops: Sequence[Crop], bucket: int) -> None:
        """See `Slot`."""
        assert 0 < len(crops) <= bucket <= self.capacity
        self.unfinished, self._count = True, len(crops)
        with self._gpu:
            self._hold(crops)
            self._crop_views(crops, bucket)
            self._run(bucket)
            features, host = self._features[: len(crops)], self._features_host[: len(crops)]
            features.get(stream=self._stream, out=host, blocking=False)
            self._stream.record(self._finish)

    @retried
    def wait(self) -> NDArray[np.float32]:
        """See `Slot`."""
        with self._gpu:
            self._finish.synchronize()
        self._held.clear()
        self.unfinished = False
        return self._features_host[: self._count]

    def done(self) -> bool:
        """See `Slot`; if the GPU was lost, `wait` raises that."""
        with self._gpu:
            return bool(self._finish.done)

    def close(self) -> None:
        """Free what it holds, once the GPU has finished with it or was lost. To close it again does nothing."""
        if self._closed:
            return
        self._closed = True
        with suppress(EngineError):
            self._settle()
        with suppress(EngineError), self._gpu:  # first: what it recorded runs on the buffers
            self._execution.close()
        with suppress(EngineError), self._gpu:
            del self._execution
            del self._table, self._table_host, self._features, self._features_host, self._views
            self._held.clear()

    @retried
    def _settle(self) -> None:
        with self._gpu:
            self._stream.synchronize()

    def _hold(self, crops: Sequence[Crop]) -> None:
        """Keep the images until they have been read, and let the stream wait until each image is there."""
        for image in {id(crop.image): crop.image for crop in crops}.values():
            assert isinstance(image, CudaImage)
            assert image.device == self.device
            self._held.append(image)
            self._stream.wait_event(image.ready)

    def _crop_views(self, crops: Sequence[Crop], bucket: int) -> None:
        table, views, rows = self._table[:bucket], self._views[:bucket], self._table_host[:bucket]
        fill(rows, map(_row, crops))
        table.set(rows, stream=self._stream)
        with self._stream:
            self._kernel(table, *views.shape[1:3], views)

    def _run(self, bucket: int) -> None:
        """Run the graph on its own stream: after the views are cropped, and before this slot's stream goes on."""
        shape, stream = (bucket, *self._views.shape[1:]), self._execution.stream
        stream.wait_event(self._stream.record(self._cropped))
        self._execution.enqueue(shape, self._views.data.ptr, [self._features.data.ptr])
        self._stream.wait_event(stream.record(self._ran))


def _row(crop: Crop) -> Row:
    image = crop.image
    assert isinstance(image, CudaImage)
    padding = PADDINGS[crop.padding]
    return image.pointer, image.height, image.width, crop.top, crop.left, int(crop.flipped), padding
