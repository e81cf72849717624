"""What an engine is: a loaded graph that runs arrays; on a GPU, one that takes images and crops the views itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spai_runtime.errors import EngineError
from spai_runtime.manifest import Precision
from spai_runtime.views import Padding, ViewShape, Window

GPU_BATCH_SIZE = 32  # views; ViT-B/16 multiplies 18,912 rows at once then, which no GPU was at hand to measure

Array = NDArray[Any]


class DeviceMemoryError(EngineError):
    """A GPU has too little memory left for a batch; a smaller one may fit."""


class DeviceLostError(EngineError):
    """A GPU stopped working: what lay on it is gone.

    :param device: `cuda:<index>`
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"{device} stopped working: {reason}")
        self.device = device


class DeviceBusyError(EngineError):
    """A GPU refused a call because somebody in this process recorded a CUDA graph; later it will not.

    :param device: `cuda:<index>`
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(
            f"{device} refuses what is asked of it while a CUDA graph is recorded ({reason}): "
            "let no other part of this program record one at the same time"
        )


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph; an axis that is a name is dynamic, and as long wherever that name stands."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Contract:
    """What a graph of an exported directory takes and gives (README, "The exported directory").

    :param window: what says how many patches an image has, where an encoder gives features of each
    """

    input: Tensor
    outputs: tuple[Tensor, ...]
    window: Window | None = None

    @classmethod
    def encoder(cls, shape: ViewShape, features: int, window: Window | None = None) -> "Contract":
        """`views` (V, H, W, 3) uint8 → `features` (V, D) float32; with a window (P, D), of all patches of the views

        :param shape: H and W of a view; None where every image has its own
        """
        sides = (name if side is None else side for name, side in zip(("height", "width"), shape, strict=True))
        views = Tensor("views", "uint8", ("views", *sides, 3))
        return cls(views, (Tensor("features", "float32", ("patches" if window else "views", features)),), window)

    @classmethod
    def head(cls, features: int, *, attention: bool = True) -> "Contract":
        """`features` (B, V, D) float32 → `logit` (B, 1), and `attention` (B, V) float32 where the head has one"""
        logit, weights = Tensor("logit", "float32", ("images", 1)), Tensor("attention", "float32", ("images", "views"))
        taken = Tensor("features", "float32", ("images", "views", features))
        return cls(taken, (logit, weights) if attention else (logit,))

    def output_shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Of an input of that shape."""
        assert len(shape) == len(self.input.shape)
        sizes: dict[int | str, int] = dict(zip(self.input.shape, shape, strict=True))
        if self.window:
            sizes["patches"] = shape[0] * math.prod(self.window.grid(*shape[1:3]))
        return [tuple(axis if isinstance(axis, int) else sizes[axis] for axis in out.shape) for out in self.outputs]

    def check(self, path: Path, outputs: Sequence[Array], shape: Sequence[int]) -> None:
        """What a graph declares of its outputs does not bind it: a Tile or a Slice may give any number of rows.

        :param path: of the graph
        :param outputs: of an input of that shape
        :raises EngineError: they are not of the types and shapes that they should have
        """
        if len(outputs) != len(self.outputs):
            raise EngineError(f"{path} gives {len(outputs)} outputs, which should be {len(self.outputs)}")
        for wanted, sides, found in zip(self.outputs, self.output_shapes(shape), outputs, strict=True):
            if found.dtype != wanted.dtype or found.shape != sides:
                gives, should = f"{found.dtype} {found.shape}", f"{wanted.dtype} {sides}"
                raise EngineError(f"{path} gives {wanted.name} as {gives}, which should be {should}: export it again")


class Engine(Protocol):
    """A loaded graph.

    :param device: it runs on: `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
    :param label: what runs where, for people: `ONNX Runtime 1.31.1, cpu`
    :param batch_size: views at once that it is fastest with
    :param computes: the precision of its large products, where it is not that of the graph
    :param streams: batches that `run` takes at the same time, each from a thread of its own
    """

    device: str
    label: str
    batch_size: int
    computes: Precision | None
    streams: int

    @property
    def as_device_engine(self) -> "DeviceEngine | None":
        """Itself, where it is on GPUs and takes whole images; None of an engine that takes arrays alone."""

    def run(self, batch: Array) -> list[Array]:
        """:param batch: as the contract's input says; its first axis is at least 1
        :returns: the contract's outputs, in its order
        """

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """As `run` of each, which may have any shapes; a GPU is given all of them before the first is waited for."""

    def close(self) -> None:
        """Frees what the graph holds; running it afterwards is an error."""


class HostEngine:
    """What engines have in common that take arrays; one with several streams says so."""

    streams: int = 1
    as_device_engine: "DeviceEngine | None" = None
    computes: Precision | None = None

    def run(self, batch: Array) -> list[Array]:
        raise NotImplementedError

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """See `Engine`."""
        return [self.run(batch) for batch in batches]


class DeviceImage(Protocol):
    """Pixels (H, W, 3) uint8 on a GPU, contiguous, that may still be on their way there."""

    device: str
    height: int
    width: int


class Crop(NamedTuple):
    """A view to take from an image on a GPU.

    :param top, left: of its corner in pixels; what lies outside the image is made up as `padding` says
    :param flipped: whether it is mirrored, left to right
    """

    image: DeviceImage
    top: int
    left: int
    flipped: bool = False
    padding: Padding = "reflect"


class Slot(Protocol):
    """One batch's way through a GPU: a stream, buffers that are allocated once, and the graph's execution.

    :param capacity: views that it holds
    """

    device: str
    capacity: int

    def upload(self, pixels: NDArray[np.uint8]) -> DeviceImage:
        """Sends an image up and returns at once; the pixels must stay as they are until it is done.

        :param pixels: (H, W, 3), contiguous; a pinned array goes up without a copy
        :raises DeviceMemoryError, DeviceLostError: there is no room for it; the GPU stopped working
        """

    def launch(self, crops: Sequence[Crop], bucket: int) -> None:
        """Crops the views out of their images on the device, runs the graph on them, and returns at once.

        The batch is filled up to `bucket` views: at one shape, what a view's features are does not depend on how many
        others there are.

        :param crops: at least 1 and at most `bucket`, whose images lie on this slot's device
        :param bucket: one of `buckets(capacity)`
        :raises DeviceMemoryError, DeviceLostError: see `upload`
        """

    def wait(self) -> NDArray[np.float32]:
        """:returns: the features of the last launch, (crops, D); they stay valid until the next
        :raises DeviceMemoryError, DeviceLostError: what went wrong on the device since
        """

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def close(self) -> None:
        """Frees its memory, in place of giving it back to the engine for later."""


class DeviceEngine(Engine, Protocol):
    """An encoder on one GPU or several, which takes images and crops the views itself."""

    @property
    def replicas(self) -> "Sequence[DeviceEngine]":
        """The engines of the GPUs that work, one each; of a single GPU, itself."""

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory of the host for pixels, pinned where that can be had: the GPU then fetches them by itself."""

    def acquire(self, capacity: int) -> Slot:
        """A slot of at least that many views, made or taken from those that were released.

        :raises DeviceMemoryError, DeviceLostError: there is no room for it; the GPU stopped working
        """

    def release(self, slot: Slot) -> None:
        """Gives a slot back for later, whose last launch has been waited for; one that failed is closed."""

    def free_unused(self) -> None:
        """Frees the memory of slots that were released, which something else needs."""

    def discard(self, device: str) -> None:
        """Counts a GPU out after it stopped working; the last one stays."""


def buckets(capacity: int) -> list[int]:
    """The batch sizes that a slot runs at: powers of two below its capacity, and that."""
    return [*(1 << bit for bit in range(capacity.bit_length()) if 1 << bit < capacity), capacity]
