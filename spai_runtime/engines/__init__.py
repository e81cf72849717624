"""Engines: a graph file → something that runs arrays through it, on a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spai_runtime.errors import EngineError
from spai_runtime.manifest import Plan

Array = NDArray[Any]

GPU_BATCH_SIZE = 32  # views; ViT-B/16 multiplies 18,912 rows at once then, which no GPU was at hand to measure


class DeviceMemoryError(EngineError):
    """A GPU has too little memory left for a batch; a smaller one may fit."""


class DeviceLostError(EngineError):
    """A GPU stopped working: what lay on it is gone.

    :param device: `cuda:<index>`
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"{device} stopped working: {reason}")
        self.device = device


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
    """What a graph of an exported directory takes and gives (README, "The exported directory")."""

    input: Tensor
    outputs: tuple[Tensor, ...]

    @classmethod
    def encoder(cls, size: int, features: int) -> "Contract":
        """`views` (V, S, S, 3) uint8 → `features` (V, D) float32"""
        views = Tensor("views", "uint8", ("views", size, size, 3))
        return cls(views, (Tensor("features", "float32", ("views", features)),))

    @classmethod
    def head(cls, features: int) -> "Contract":
        """`features` (B, V, D) float32 → `logit` (B, 1), `attention` (B, V) float32"""
        outputs = Tensor("logit", "float32", ("images", 1)), Tensor("attention", "float32", ("images", "views"))
        return cls(Tensor("features", "float32", ("images", "views", features)), outputs)

    def output_shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Of an input of that shape."""
        assert len(shape) == len(self.input.shape)
        sizes: Mapping[int | str, int] = dict(zip(self.input.shape, shape, strict=True))
        return [tuple(axis if isinstance(axis, int) else sizes[axis] for axis in out.shape) for out in self.outputs]


class Engine(Protocol):
    """A loaded graph.

    :param device: it runs on: `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
    :param label: what runs where, for people: `ONNX Runtime 1.31.1, cpu`
    :param batch_size: views at once that it is fastest with
    """

    device: str
    label: str
    batch_size: int

    def run(self, batch: Array) -> list[Array]:
        """:param batch: as the contract's input says; its first axis is at least 1
        :returns: the contract's outputs, in its order
        """

    def run_all(self, batches: Sequence[Array]) -> list[list[Array]]:
        """As `run` of each, which may have any shapes; a GPU is given all of them before the first is waited for."""

    def close(self) -> None:
        """Frees what the graph holds; running it afterwards is an error."""


class HostEngine:
    """What engines have in common that take arrays one after the other."""

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


class Cut(NamedTuple):
    """A view to take from an image: its top left corner in pixels; outside the image, pixels are reflected."""

    image: DeviceImage
    top: int
    left: int


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

    def launch(self, cuts: Sequence[Cut], bucket: int) -> None:
        """Cuts the views out of their images on the device, runs the graph on them, and returns at once.

        The batch is filled up to `bucket` views: at one shape, what a view's features are does not depend on how many
        others there are.

        :param cuts: at least 1 and at most `bucket`, whose images lie on this slot's device
        :param bucket: one of `buckets(capacity)`
        :raises DeviceMemoryError, DeviceLostError: see `upload`
        """

    def wait(self) -> NDArray[np.float32]:
        """:returns: the features of the last launch, (cuts, D); they stay valid until the next
        :raises DeviceMemoryError, DeviceLostError: what went wrong on the device since
        """

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def close(self) -> None:
        """Frees its memory, in place of giving it back to the engine for later."""


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An encoder on one GPU or several, which takes images and cuts the views itself.

    :param replicas: the engines of the GPUs that work, one each; of a single GPU, itself
    """

    @property
    def replicas(self) -> Sequence["DeviceEngine"]: ...

    def acquire(self, capacity: int) -> Slot:
        """A slot of at least that many views, made or taken from those that were released.

        :raises DeviceMemoryError, DeviceLostError: there is no room for it; the GPU stopped working
        """

    def release(self, slot: Slot) -> None:
        """Gives a slot back for later, whose last launch has been waited for; one that failed is closed."""

    def discard(self, device: str) -> None:
        """Counts a GPU out after it stopped working; the last one stays."""


def buckets(capacity: int) -> list[int]:
    """The batch sizes that a slot runs at: powers of two below its capacity, and that."""
    return [*(1 << bit for bit in range(capacity.bit_length()) if 1 << bit < capacity), capacity]


def load_engine(path: Path, contract: Contract, device: str, plan: Plan | None = None) -> Engine:
    """:param path: of the graph; its suffix chooses the back end: .onnx, or .plan
    :param device: `cpu`, `cuda:<index>`, or several GPUs, `cuda:<index>,<index>`
    :param plan: what detector.json says of a .plan; whoever calls has checked its digest
    :raises EngineError: the back end is missing, the device is not there, or the graph is refused
    """
    from spai_runtime.engines.choice import load  # noqa: PLC0415  which imports what is above

    return load(path, contract, device, plan)
