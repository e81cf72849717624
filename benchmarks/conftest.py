"""What the benchmarks share: one line of JSON each, and a file of it under `--json-results DIR`."""

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

from spai_runtime.cores import cores

LIBRARIES = (
    "cupy-cuda13x",
    "nncf",
    "numpy",
    "nvidia-modelopt",
    "nvidia-nvimgcodec-cu13",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "pillow",
    "spai-toolkit",
    "tensorrt",
    "timm",
    "torch",
    "torchvision",
    "triton",
)
CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
)

Report = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--json-results",
        metavar="DIR",
        default=os.environ.get("SPAI_BENCH_RESULTS"),
        help="write <benchmark>.json there, with what is known of the machine (default: $SPAI_BENCH_RESULTS)",
    )


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:  # noqa: ARG001
    machine_info.pop("node", None)  # a host's name is nobody's business


@pytest.fixture
def report(request: pytest.FixtureRequest, benchmark: Any) -> Report:
    """`report(name, **values)`: one line of JSON on stdout, pytest-benchmark's extra info, and the result file."""

    def write(name: str, **values: Any) -> None:
        result = {"benchmark": name, **{key: _rounded(value) for key, value in values.items()}}
        benchmark.extra_info.update(result)
        print(f"\n{json.dumps(result)}")  # noqa: T201
        if folder := request.config.getoption("json_results"):
            path = Path(folder) / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**result, "machine": machine()}, indent=2) + "\n", encoding="utf-8")

    return write


def machine() -> dict[str, Any]:
    """CPU features, cores and versions; no names, no paths."""
    return {
        "architecture": platform.machine(),
        "cpu_features": _cpu_features(),
        "cores": os.cpu_count(),
        "cores_allowed": cores(),
        "torch_threads": torch.get_num_threads(),
        "load_average_1min": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "libraries": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of those of LIBRARIES that are installed; a checkout on the path alone is not."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cpu_features() -> list[str]:
    """Those of CPU_FEATURES that /proc/cpuinfo lists; empty where there is none."""
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    return [feature for feature in CPU_FEATURES if feature in flags]


def _rounded(value: Any) -> Any:
    """Four significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
