"""`import cupy` without a GPU: the part of CuPy 14 that spai_runtime uses, and not a name more.

`fake_machine` has the memory and the knobs, `fake_streams` what is asynchronous, `fake_arrays` and `fake_kernels` the
rest.
"""

import functools
import importlib.machinery
import sys
from types import ModuleType
from typing import Any, ClassVar, Self

import pytest

from tests.gpu.fakes.fake_arrays import alloc, asarray, empty, empty_pinned, ndarray
from tests.gpu.fakes.fake_kernels import ElementwiseKernel
from tests.gpu.fakes.fake_machine import (
    GLOBAL,
    RELAXED,
    THREAD_LOCAL,
    CUDADriverError,
    CUDARuntimeError,
    Gpu,
    Machine,
    OutOfMemoryError,
)
from tests.gpu.fakes.fake_streams import Event, Graph, Stream, of_machine


def install(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int = 1,
    memory: int = 8 << 30,
    *,
    capability: tuple[int, int] = (9, 0),
    name: str = "NVIDIA H100",
) -> Machine:
    """Puts `cupy` and `cupyx` into sys.modules until the test ends.

    :param memory: bytes of each GPU
    """
    machine = Machine([Gpu(memory, capability, name) for _ in range(gpus)])
    for module in modules(machine):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return machine


def modules(machine: Machine) -> list[ModuleType]:
    """As they are in CuPy, each an attribute of its parent."""
    array = of_machine(machine, ndarray)
    runtime = module("cupy.cuda.runtime", CUDARuntimeError=CUDARuntimeError, **runtime_functions(machine))
    driver = module("cupy.cuda.driver", CUDADriverError=CUDADriverError)
    memory = module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError)
    classes = {kind.__name__: of_machine(machine, kind) for kind in (Device, Stream, Event)}
    cuda = module(
        "cupy.cuda",
        runtime=runtime,
        driver=driver,
        memory=memory,
        Graph=Graph,
        alloc=functools.partial(alloc, machine),
        **classes,
    )
    cupy = module(
        "cupy",
        cuda=cuda,
        ndarray=array,
        empty=functools.partial(empty, machine, array),
        asarray=functools.partial(asarray, machine, array),
        ElementwiseKernel=of_machine(machine, ElementwiseKernel),
        get_default_memory_pool=functools.partial(Pool, machine),
        get_default_pinned_memory_pool=functools.partial(Pool, machine),
    )
    cupyx = module("cupyx", empty_pinned=functools.partial(empty_pinned, machine))
    return [cupy, cuda, runtime, driver, memory, cupyx]


def module(name: str, **attributes: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(attributes)
    return made


def runtime_functions(machine: Machine) -> dict[str, Any]:
    """Of cupy.cuda.runtime."""

    def device_count() -> int:
        if not machine.gpus:
            raise CUDARuntimeError(35)
        return len(machine.gpus)

    def properties(device: int) -> dict[str, Any]:
        machine.working(device)
        gpu = machine.gpus[device]
        major, minor = gpu.capability
        return {"name": gpu.name.encode(), "major": major, "minor": minor, "totalGlobalMem": gpu.memory}

    def device() -> int:
        if not machine.gpus:
            raise CUDARuntimeError(35)
        return machine.current

    return {
        "getDeviceCount": device_count,
        "getDeviceProperties": properties,
        "driverGetVersion": lambda: 13000,  # 13.0
        "getDevice": device,
        "setDevice": machine.choose,
        "streamCaptureModeGlobal": GLOBAL,
        "streamCaptureModeThreadLocal": THREAD_LOCAL,
        "streamCaptureModeRelaxed": RELAXED,
    }


class Pool:
    """Freed memory is free at once, so a pool holds none; giving it back is a call to CUDA all the same."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def free_all_blocks(self) -> None:
        self.machine.interrupt()


class Device:
    """cupy.cuda.Device; one that was lost cannot be chosen, and then the GPU to go back to stays on CuPy's stack."""

    machine: ClassVar[Machine]

    def __init__(self, device: int) -> None:
        self.id = device

    def __enter__(self) -> Self:
        self.machine.local.devices.append(self.machine.current)
        if self.id != self.machine.current:
            self.machine.choose(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.choose(self.machine.local.devices.pop())

    def synchronize(self) -> None:
        self.machine.interrupt()
        self.machine.use(self.id)
        for stream in list(self.machine.streams.values()):
            if stream.device_id == self.id:
                stream.synchronize()
