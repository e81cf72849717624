"""GPUs as CuPy sees them: which ones there are, and CuPy's errors as errors that an engine knows."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from spai_runtime.engines.base import DeviceBusyError, DeviceLostError, DeviceMemoryError
from spai_runtime.engines.cuda.recording import RECORDINGS
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.text import excerpt, sentence

# cudaErrorMemoryAllocation and cudaErrorStreamCapture…; CUDA_ERROR_OUT_OF_MEMORY and CUDA_ERROR_STREAM_CAPTURE_… of the
# driver, in which kernels are launched, have the same numbers.
_OUT_OF_MEMORY = 2
CAPTURE_ERRORS = range(900, 909)

_entered = threading.local()  # the GPU that was the current one before each `with gpu:` of a thread


@dataclass(frozen=True)
class Gpu:
    """One GPU. In a `with`, it is the thread's current GPU, and CuPy's errors become an engine's errors.

    :param name: the name that its maker gave it, e.g. `NVIDIA H200`
    :param capability: its compute capability, e.g. `9.0`
    :raises DeviceMemoryError, DeviceLostError, DeviceBusyError: from inside the `with`
    """

    index: int
    name: str
    capability: str

    @classmethod
    def find(cls, device: str) -> "Gpu":
        """Find a GPU. :param device: `cuda:<index>`
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
        """Give back the memory that CuPy keeps for later and that other libraries cannot use."""
        cupy = import_cupy()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def full(self, reason: object) -> DeviceMemoryError:
        """The error to raise when something does not fit into the GPU's memory."""
        said = sentence(str(reason))
        return DeviceMemoryError(f"{self.device} has too little memory, give a smaller --batch-size: {said}")

    def __enter__(self) -> Self:
        runtime = import_cupy().cuda.runtime
        RECORDINGS.enter()
        try:  # without CuPy's Device, whose `with` on a GPU that is lost leaves its stack of devices out of step
            before = runtime.getDevice()
            runtime.setDevice(self.index)
        except BaseException as error:
            RECORDINGS.leave()
            self._translate(error)
            raise
        _stack().append(before)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is not None:
                self._translate(error)
        finally:
            with suppress(*failures()):  # of a GPU that was lost
                import_cupy().cuda.runtime.setDevice(_stack().pop())
            RECORDINGS.leave()

    def _translate(self, error: BaseException) -> None:
        """Raise an engine's error in place of CuPy's; other errors pass through."""
        status = getattr(error, "status", None) if isinstance(error, failures()) else None
        if status == _OUT_OF_MEMORY or isinstance(error, import_cupy().cuda.memory.OutOfMemoryError):
            with suppress(*failures()):
                self.free_unused()
            raise self.full(error) from error
        if status in CAPTURE_ERRORS:
            raise DeviceBusyError(self.device, str(error)) from error
        if status is not None:
            raise DeviceLostError(self.device, str(error)) from error


def failures() -> tuple[type[Exception], ...]:
    """CuPy's classes of CUDA errors, which have a `status`: one for CUDA's runtime, one for the driver (kernels)."""
    cuda = import_cupy().cuda
    return cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError


def import_cupy() -> Any:
    """Import CuPy. :raises EngineError: it is not installed, or a library that it needs is missing"""
    try:
        import cupy  # noqa: PLC0415
    except ImportError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]  # CuPy puts a page around the cause
        what = "is not installed" if error.name == "cupy" else f"cannot be imported ({excerpt(reason)})"
        raise EngineError(f"CuPy {what}: {install('gpu')}") from error
    return cupy


def _count() -> int:
    runtime = import_cupy().cuda.runtime
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:  # no driver, one that is too old, or no GPU
        raise EngineError(f"no GPU can be used ({error}); check that there is one, with its driver") from error


def _stack() -> list[int]:
    if not hasattr(_entered, "devices"):
        _entered.devices = []
    devices: list[int] = _entered.devices
    return devices
