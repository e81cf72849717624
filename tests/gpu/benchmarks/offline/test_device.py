"""What the driver says of the GPU, by a driver that is made up."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
from gpu.offline.device import Device, NoGpuError, first

H200 = {75: 9, 76: 0}


def driver(count: int = 1, refuses: int = 0) -> Any:
    """:param refuses: what cuInit answers"""

    def answer(pointer: Any, value: Any) -> int:
        pointer._obj.value = value
        return 0

    return SimpleNamespace(
        cuInit=lambda flags: refuses or flags,
        cuDeviceGetCount=lambda pointer: answer(pointer, count),
        cuDeviceGetName=lambda buffer, length, _: setattr(buffer, "value", b"NVIDIA H200"[:length]),
        cuDeviceGetAttribute=lambda pointer, attribute, _: answer(pointer, H200[attribute]),
    )


def test_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver())
    assert first() == Device("NVIDIA H200", 90)


@pytest.mark.parametrize("found", [driver(count=0), driver(refuses=100)])
def test_a_driver_that_sees_none(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """100 is CUDA_ERROR_NO_DEVICE."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: found)
    with pytest.raises(NoGpuError, match=r"^there is no NVIDIA GPU here: the driver sees none$"):
        first()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(NoGpuError, match=r"^there is no NVIDIA GPU here: its driver, libcuda\.so\.1, is missing$"):
        first()


@pytest.mark.parametrize(
    ("capability", "architecture", "runs"),
    [(90, 90, True), (86, 80, True), (80, 86, False), (103, 100, False), (121, 120, False), (90, 89, False)],
)
def test_which_machine_code_a_gpu_runs(capability: int, architecture: int, runs: bool) -> None:
    assert Device("", capability).runs(architecture) is runs
