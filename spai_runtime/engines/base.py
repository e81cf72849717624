"""Engines: a loaded graph that runs arrays; on a GPU, one that takes images and crops the views itself."""

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
    """A GPU stopped working, and everything in its memory is lost.

    :param device: `cuda:<index>`
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"{device} stopped working: {reason}")
        self.device = device


class DeviceBusyError(EngineError):
    """A GPU refused a call because somebody in this process was recording a CUDA graph; the call will work later.

    :param device: `cuda:<index>`
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(
            f"{device} refuses what is asked of it while a CUDA graph is recorded ({reason}): "
            "let no other part of this program record one at the same time"
        )


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph. An axis that is a name is dynamic; axes of the same name are equally long."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of a graph of an exported directory (README, "The exported directory").

    :param window: says how many patches an image has, if the encoder gives features of each patch
    """

    input: Tensor
    outputs: tuple[Tensor, ...]
    window: Window | None = None

    @classmethod
    def encoder(cls, shape: ViewShape, features: int, window: Window | None = None) -> "Contract":
        """`views` (V, H, W, 3) uint8 → `features` (V, D) float32; with a window (P, D), a row for each patch

        :param shape: H and W of a view; None if every image has its own
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
        """The shapes of the outputs for an input of that shape."""
        assert len(shape) == len(self.input.shape)
        sizes: dict[int | str, int] = dict(zip(self.input.shape, shape, strict=True))
        if self.window:
            sizes["patches"] = shape[0] * math.prod(self.window.grid(*shape[1:3]))
        return [tuple(axis if isinstance(axis, int) else sizes[axis] for axis in out.shape) for out in self.outputs]

    def check(self, path: Path, outputs: Sequence[Array], shape: Sequence[int]) -> None:
        """Check outputs, since what a graph declares does not bind it: a Tile or a Slice may give any number of rows.

        :param path: the graph's file
        :param outputs: what the graph gave for an input of that shape
        :raises EngineError: the outputs do not have the types and shapes that they should have
        """
        if len(outputs) != len(self.outputs):
            raise EngineError(f"{path} gives {len(outputs)} outputs, which should be {len(self.outputs)}")
        for wanted, sides, found in zip(self.outputs, self.output_shapes(shape), outputs, strict=True):
            if found.dtype != wanted.dtype or found.shape != sides:
                gives, should = f"{found.dtype} {found.shape}", f"{wanted.dtype} {sides}"
                raise EngineError(f"{path} gives {wanted.name} as {gives}, which should be {should}: export it again")


class Engine(Protocol):
    """A loaded graph.

    :param device: where it runs: `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
    :param label: what runs and where, in words for people: `ONNX Runtime 1.31.1, cpu`
    :param batch_size: the number of views in a batch with which it is fastest
    :param computes: the precision of its large products, if it is not that of the graph
    :param streams: how many batches `run` takes at the same time, each from a thread of its own
    """

    device: str
    label: str
    batch_size: int
    computes: Precision | None
    streams: int

    @property
    def as_device_engine(self) -> "DeviceEngine | None":
        """This engine, if it runs on GPUs and takes whole images; None if it only takes arrays."""

    def run(self, batch: Array) -> list[Array]:
        """Run one batch: an array as the contract's input says, with a first axis of at least 1.

        :returns: the contract's outputs, in the contract's order
        """

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """Run each batch; batches may differ in shape. A GPU gets all of them before the first is waited for."""

    def close(self) -> None:
        """Free what the graph holds; to run it afterwards is an error."""


class HostEngine:
    """The common part of engines that take arrays; one with several streams says so."""

    streams: int = 1
    as_device_engine: "DeviceEngine | None" = None
    computes: Precision | None = None

    def run(self, batch: Array) -> list[Array]:
        raise NotImplementedError

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """See `Engine`."""
        return [self.run(batch) for batch in batches]


class DeviceImage(Protocol):
    """An image on a GPU, or on its way there: contiguous pixels (H, W, 3) uint8."""

    device: str
    height: int
    width: int


class Crop(NamedTuple):
    """A view to take from an image on a GPU.

    :param top, left: its corner in pixels of the image; what lies outside the image is filled as `padding` says
    :param flipped: whether it is mirrored, left to right
    """

    image: DeviceImage
    top: int
    left: int
    flipped: bool = False
    padding: Padding = "reflect"


class Slot(Protocol):
    """One place for a batch on a GPU: a stream, buffers that are allocated once, and the graph's execution.

    :param capacity: the number of views that it holds
    """

    device: str
    capacity: int

    def upload(self, pixels: NDArray[np.uint8]) -> DeviceImage:
        """Send an image to the GPU and return at once; the pixels must not change until the copy is done.

        :param pixels: (H, W, 3), contiguous; a pinned array is sent without another copy
        :raises DeviceMemoryError, DeviceLostError: there is no room for it; the GPU stopped working
        """

    def launch(self, crops: Sequence[Crop], bucket: int) -> None:
        """Crop the views out of their images on the device, run the graph on them, and return at once.

        The batch is filled up to `bucket` views: in a batch of one size, a view's features do not depend on how many
        other views there are.

        :param crops: at least 1 and at most `bucket`; their images lie on this slot's device
        :param bucket: one of `buckets(capacity)`
        :raises DeviceMemoryError, DeviceLostError: see `upload`
        """

    def wait(self) -> NDArray[np.float32]:
        """Wait for the last launch, and return its features (crops, D), which stay valid until the next launch.

        :raises DeviceMemoryError, DeviceLostError: something went wrong on the device since the launch
        """

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def close(self) -> None:
        """Free the slot's memory, in place of giving it back to the engine for later."""


class DeviceEngine(Engine, Protocol):
    """An encoder on one GPU or several, which takes images and crops the views itself."""

    @property
    def replicas(self) -> "Sequence[DeviceEngine]":
        """The engines of the GPUs that work, one for each GPU; an engine on one GPU gives itself."""

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory of the host for pixels, pinned if possible: a GPU fetches from pinned memory by itself."""

    def acquire(self, capacity: int) -> Slot:
        """A slot of at least that many views: a new one, or one that was released.

        :raises DeviceMemoryError, DeviceLostError: there is no room for it; the GPU stopped working
        """

    def release(self, slot: Slot) -> None:
        """Give a slot back for later use, after its last launch was waited for; a slot that failed is closed."""

    def free_unused(self) -> None:
        """Free the memory of slots that were released, because something else needs it."""

    def discard(self, device: str) -> None:
        """Use a GPU no more, because it stopped working; the last one stays."""


def buckets(capacity: int) -> list[int]:
    """The batch sizes that a slot runs at: the powers of two below its capacity, and the capacity."""
    return [*(1 << bit for bit in range(capacity.bit_length()) if 1 << bit < capacity), capacity]
