"""Engines: a graph file → something that runs arrays through it, on a device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from spai_runtime.errors import EngineError

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph; None is a dynamic axis."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name} {self.dtype} ({axes})"


@dataclass(frozen=True)
class Contract:
    """What a graph of an exported directory takes and gives (README, "The exported directory")."""

    input: Tensor
    outputs: tuple[Tensor, ...]

    @classmethod
    def encoder(cls, size: int, features: int) -> "Contract":
        """`views` (V, S, S, 3) uint8 → `features` (V, D) float32"""
        views = Tensor("views", "uint8", (None, size, size, 3))
        return cls(views, (Tensor("features", "float32", (None, features)),))

    @classmethod
    def head(cls, features: int) -> "Contract":
        """`features` (B, V, D) float32 → `logit` (B, 1), `attention` (B, V) float32"""
        outputs = Tensor("logit", "float32", (None, 1)), Tensor("attention", "float32", (None, None))
        return cls(Tensor("features", "float32", (None, None, features)), outputs)


class Engine(Protocol):
    """A loaded graph.

    :param device: it runs on, `cpu` or `cuda:<index>`
    :param batch_size: views at once that it is fastest with
    """

    device: str
    batch_size: int

    def run(self, batch: Array) -> list[Array]:
        """:param batch: as the contract's input says; its first axis is at least 1
        :returns: the contract's outputs, in its order
        """

    def close(self) -> None:
        """Frees what the graph holds; running it afterwards is an error."""


def load_engine(path: Path, contract: Contract, device: str = "auto") -> Engine:
    """:param path: of the graph; its suffix chooses the back end
    :param device: `auto`, `cpu` or `cuda:<index>`
    :raises EngineError: the back end is missing, the device is not there, or the graph is refused
    """
    if path.suffix == ".onnx":
        from spai_runtime.engines.onnx import OnnxEngine  # noqa: PLC0415

        return OnnxEngine(path, contract, device)
    raise EngineError(f"{path} is of no kind that this version runs; .onnx is")
