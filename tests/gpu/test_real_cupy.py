"""The fake of CuPy is a part of the real one: every name, parameter and default that our code can use without a GPU.

What our code uses, the fake has, or our tests would not run; so a name that CuPy lacks is found here. No GPU and no
driver is needed. `make bindings` puts CuPy where no other test imports it.
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.fakes import fake_cupy
from tests.gpu.fakes.fake_machine import STATUSES, Machine
from tests.gpu.fakes.fake_machine import OutOfMemoryError as Full
from tests.support.bindings.releases import CUPY, FOLDER, available

ROOT = Path(__file__).parents[2]
OURS = {"machine", "enqueue", "run"}  # through which fakes and tests queue what they do
NEW = {"CUDARuntimeError", "CUDADriverError", "OutOfMemoryError", "Graph", "ndarray"}  # we make none
OF_OBJECTS = [  # attributes that objects of the fake get when they are made
    *(f"cupy.ndarray.{name}" for name in ("data", "shape", "dtype", "size", "nbytes", "__cuda_array_interface__")),
    "cupy.cuda.MemoryPointer.ptr",
]


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    """Other processes find CuPy."""
    available(CUPY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(FOLDER / CUPY), os.environ.get("PYTHONPATH", ""))))
        yield


def public(value: object) -> Iterator[tuple[str, Any]]:
    return ((name, found) for name, found in vars(value).items() if not name.startswith("_") and name not in OURS)


def names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Of a fake module, with what its classes have."""
    for name, value in public(module):
        if isinstance(value, ModuleType):
            continue
        yield f"{module.__name__}.{name}", value
        kind = value.func if hasattr(value, "func") else value
        if isinstance(kind, type) and not issubclass(kind, Exception) and kind is not fake_cupy.Pool:
            for base in kind.__mro__[:-1]:
                yield from ((f"{module.__name__}.{name}.{part}", found) for part, found in public(base))


@pytest.fixture(scope="module")
def fakes() -> dict[str, Any]:
    modules = fake_cupy.modules(Machine([]))
    found = {name: value for module in modules for name, value in names(module)}
    return {**found, "cupy.cuda.MemoryPool.free_all_blocks": fake_cupy.Pool.free_all_blocks}


@pytest.fixture(scope="module")
def real(fakes: dict[str, Any], path: None) -> dict[str, Any]:  # noqa: ARG001
    """Of the same names; see `tests.support.real_cupy`."""
    command = [sys.executable, "-m", "tests.support.real_cupy", *fakes, *OF_OBJECTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_every_name_is_there(real: dict[str, Any]) -> None:
    assert len(real) > 40
    assert [name for name, found in real.items() if found is None] == []


def test_every_parameter_is_there(fakes: dict[str, Any], real: dict[str, Any]) -> None:
    compared = 0
    for name, value in fakes.items():
        if not callable(value) or name.rpartition(".")[2] in NEW:
            continue
        theirs = [one for one in real[name] if one[0] != "self"]
        ours = [one for one in inspect.signature(value).parameters.values() if one.name != "self"]
        places = {one[0]: index for index, one in enumerate(theirs)}
        for index, one in enumerate(ours):
            assert one.name in places, f"{name} has no {one.name}"
            assert one.kind is one.KEYWORD_ONLY or places[one.name] == index, f"{name} has {one.name} elsewhere"
            if one.default is not one.empty:
                assert theirs[places[one.name]][1:] == [repr(one.default)], f"{name} has another default of {one.name}"
            compared += 1
        needed = [one[0] for one in theirs if len(one) == 1]
        assert {*needed} <= {one.name for one in ours}, f"{name} needs more"
    assert compared > 20


ERRORS = """
import json, sys
import cupy
from cupy.cuda import driver, memory, runtime
errors = [runtime.CUDARuntimeError(int(status)) for status in sys.argv[1:]]
assert all(int(status) == error.status for status, error in zip(sys.argv[1:], errors))
assert issubclass(memory.OutOfMemoryError, MemoryError)
assert issubclass(driver.CUDADriverError, RuntimeError)
assert not issubclass(driver.CUDADriverError, runtime.CUDARuntimeError)
modes = [getattr(runtime, f"streamCaptureMode{mode}") for mode in ("Global", "ThreadLocal", "Relaxed")]
print(json.dumps([[*map(str, errors)], str(memory.OutOfMemoryError(512, 1024, 2048)), modes]))
"""


def test_errors_say_the_same() -> None:
    command = [sys.executable, "-c", ERRORS, *map(str, STATUSES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    errors, full, modes = json.loads(done.stdout)
    assert errors == list(STATUSES.values())
    assert full == str(Full(512, 1024, 2048))
    assert modes == [0, 1, 2]


def test_the_cropping_kernel_is_cuda() -> None:
    """NVIDIA's compiler needs no GPU: the oldest that this CUDA knows, data-centre and consumer GPUs of today."""
    architectures = ["sm_75", "sm_80", "sm_90", "sm_120"]
    command = [sys.executable, "-m", "tests.support.crop_by_nvrtc", *architectures]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "no NVRTC: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    sizes = dict(line.split() for line in done.stdout.splitlines())
    assert [*sizes] == architectures
    assert all(int(size) > 1000 for size in sizes.values())
