"""A GPU as CuPy sees it: which there are, and what goes wrong on one, as the two errors that an engine knows."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from spai_runtime.engines.base import DeviceLostError, DeviceMemoryError
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation

_entered = threading.local()  # what every `with gpu:` of a thread has to leave again


@dataclass(frozen=True)
class Gpu:
    """One GPU. In a `with`, it is the thread's current one, and CuPy's errors become an engine's.

    :param name: as its maker calls it, e.g. `NVIDIA H200`
    :param capability: its compute capability, e.g. `9.0`
    :raises DeviceMemoryError, DeviceLostError: from within the `with`
    """

    index: int
    name: str
    capability: str

    @classmethod
    def find(cls, device: str) -> "Gpu":
        """:param device: `cuda:<index>`
        :raises EngineError: CuPy, the driver or that GPU is missing
        """
        chosen = gpus(device)
        if len(chosen) != 1:
            raise EngineError(f"one GPU is wanted, such as cuda:0, and not {device}")
        (index,), runtime, count = chosen, import_cupy().cuda.runtime, _count()
        if index >= count:
            raise EngineError(f"there is no cuda:{index}: this machine has {count} GPU{'s' if count > 1 else ''}")
        try:
            properties = runtime.getDeviceProperties(index)
        except runtime.CUDARuntimeError as error:
            raise DeviceLostError(device, str(error)) from error
        return cls(index, properties["name"].decode(), f"{properties['major']}.{properties['minor']}")

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"

    def free_unused(self) -> None:
        """Gives back what CuPy keeps for later, which other libraries cannot use."""
        cupy = import_cupy()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def full(self, reason: object) -> DeviceMemoryError:
        """What to raise when something does not fit."""
        sentence = " ".join(str(reason).split()).removesuffix(".")
        return DeviceMemoryError(f"{self.device} has too little memory, give a smaller --batch-size: {sentence}")

    def __enter__(self) -> Self:
        device = import_cupy().cuda.Device(self.index)  # one a time: it remembers what was current before
        try:
            device.__enter__()
        except Exception as error:
            self._translate(error)
            raise
        _stack().append(device)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is not None:
                self._translate(error)
        finally:
            with suppress(import_cupy().cuda.runtime.CUDARuntimeError):  # of a GPU that was lost
                _stack().pop().__exit__(None, None, trace)

    def _translate(self, error: BaseException) -> None:
        """Raises what an engine knows instead of what CuPy says; other errors pass."""
        cuda = import_cupy().cuda
        full = isinstance(error, cuda.memory.OutOfMemoryError)
        if full or (isinstance(error, cuda.runtime.CUDARuntimeError) and error.status == _OUT_OF_MEMORY):
            with suppress(cuda.runtime.CUDARuntimeError):
                self.free_unused()
            raise self.full(error) from error
        if isinstance(error, cuda.runtime.CUDARuntimeError):
            raise DeviceLostError(self.device, str(error)) from error


def import_cupy() -> Any:
    """:raises EngineError: it is not installed"""
    try:
        import cupy  # noqa: PLC0415
    except ImportError as error:
        raise EngineError("CuPy is not installed: pip install 'spai-toolkit[gpu]'") from error
    return cupy


def _count() -> int:
    runtime = import_cupy().cuda.runtime
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:  # no driver, one that is too old, or no GPU
        raise EngineError(f"no GPU can be used ({error}); check that there is one, with its driver") from error


def _stack() -> list[Any]:
    if not hasattr(_entered, "devices"):
        _entered.devices = []
    devices: list[Any] = _entered.devices
    return devices
