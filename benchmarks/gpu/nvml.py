"""Memory in use on a GPU, asked of NVML again and again: `python nvml.py GPU-<uuid>`, a process of its own.

It prints what is in use in bytes, and, once its input ends, the most that it has seen. The process that is measured
records CUDA graphs meanwhile, which its own questions to CUDA could spoil (error 900); another process's cannot.
"""

import ctypes
import select
import sys
from collections.abc import Callable

POLL = 0.002  # seconds


class Memory(ctypes.Structure):
    """`nvmlMemory_t`, of nvml.h."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def in_use(gpu: str) -> Callable[[], int]:
    """:param gpu: `GPU-<uuid>`
    :raises OSError: there is no NVML, or it knows no such GPU
    """
    nvml, handle, memory = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), Memory()
    _check(nvml.nvmlInit_v2())
    _check(nvml.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle)))

    def used() -> int:
        _check(nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)))
        return memory.used

    return used


def _check(code: int) -> None:
    if code:
        raise OSError(f"NVML answers {code}")


def watch(used: Callable[[], int]) -> None:
    """Until stdin ends."""
    most = used()
    print(most, flush=True)  # noqa: T201
    while not select.select([sys.stdin], [], [], POLL)[0]:
        most = max(most, used())
    print(max(most, used()))  # noqa: T201


if __name__ == "__main__":
    watch(in_use(sys.argv[1]))
