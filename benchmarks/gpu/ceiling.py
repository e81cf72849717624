"""What the GPU is, and the rate that its matrix units reach on a large product: the ceiling of every contender."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from text import first_line
from torch import Tensor

SIDE = 8192
OPERATIONS = 2 * SIDE**3


def exact_fp32() -> None:
    """No TF32, in products (torch's default) and in convolutions (not its default)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def used_memory() -> int:
    """Bytes in use on the GPU, by all processes and libraries."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def uuid() -> str:
    """Of the GPU, as NVML knows it."""
    return f"GPU-{str(torch.cuda.get_device_properties(0).uuid).removeprefix('GPU-')}"


def device_facts() -> dict[str, Any]:
    """`context_mb` is what is in use once CUDA has started in this process and nothing is loaded."""
    torch.cuda.synchronize()
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_mb": properties.total_memory / 1e6,
        "context_mb": used_memory() / 1e6,
        "driver": _driver(),
        "cuda_runtime": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def matmul_rates(seconds: float) -> dict[str, float | str]:
    """TFLOP/s of a square product of random matrices by precision, or why there is none."""
    found: dict[str, float | str] = {}
    for precision, product in PRODUCTS.items():
        try:
            found[precision] = OPERATIONS / _seconds(product(), seconds) / 1e12
        except Exception as error:  # a type that this GPU or this PyTorch does not multiply
            found[precision] = first_line(error)
    return found


def _seconds(product: Callable[[], Tensor], seconds: float) -> float:
    """Of one product, the mean of as many as fit into the time, one behind the other."""
    for _ in range(3):
        product()
    torch.cuda.synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(5):
            product()
        torch.cuda.synchronize()
        count += 5
    return (time.perf_counter() - start) / count


def _plain(dtype: torch.dtype) -> Callable[[], Tensor]:
    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(dtype) for _ in range(2))
    return lambda: a @ b


def _scaled() -> Callable[[], Tensor]:
    """fp8 (E4M3) at its fastest, with one scale a matrix; the second is column-major, as the kernel wants it."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
    one = torch.ones((), device="cuda")
    return lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)


def _integers() -> Callable[[], Tensor]:
    a, b = (torch.randint(-128, 128, (SIDE, SIDE), device="cuda", dtype=torch.int8) for _ in range(2))
    return lambda: torch._int_mm(a, b.t())


PRODUCTS: dict[str, Callable[[], Callable[[], Tensor]]] = {
    "fp32": lambda: _plain(torch.float32),
    "fp16": lambda: _plain(torch.float16),
    "bf16": lambda: _plain(torch.bfloat16),
    "fp8": _scaled,
    "int8": _integers,
}


def _driver() -> str | None:
    """The version that nvidia-smi tells, where there is one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
