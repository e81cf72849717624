"""The GPU of this machine, asked of its driver alone: that takes no time and needs no package."""

import ctypes
from dataclasses import dataclass
from typing import Any

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, of cuda.h


class NoGpuError(Exception):
    """One sentence that says so."""


@dataclass(frozen=True)
class Device:
    """:param capability: compute capability × 10"""

    name: str
    capability: int

    def runs(self, architecture: int) -> bool:
        """Whether machine code for that architecture runs here.

        Before 9.0 it runs on later GPUs of its major version too ("CUDA C++ Programming Guide", binary compatibility);
        from 9.0 on ONNX Runtime's is for one GPU alone (`cuobjdump --list-elf` says sm_90a and sm_120a).
        """
        same_major = self.capability // 10 == architecture // 10
        return same_major and (self.capability == architecture or 90 > self.capability > architecture)


def first() -> Device:
    """:raises NoGpuError: there is no driver, or it sees no GPU"""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoGpuError("there is no NVIDIA GPU here: its driver, libcuda.so.1, is missing") from error
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise NoGpuError("there is no NVIDIA GPU here: the driver sees none")
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), 0)  # device 0; its handle is its number
    return Device(name.value.decode(), 10 * _attribute(cuda, MAJOR) + _attribute(cuda, MINOR))


def _attribute(cuda: Any, attribute: int) -> int:
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
    return value.value
