"""TensorRT: a plan that was built for exactly this version and kind of GPU."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from spai_runtime.engines.base import Contract
from spai_runtime.engines.cuda.engine import CudaEngine
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.installed import is_installed
from spai_runtime.engines.tensorrt_program import TensorRTProgram
from spai_runtime.engines.tensorrt_target import Target
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.manifest import Artifact


def available() -> bool:
    """Whether TensorRT is installed, in full or lean."""
    return any(is_installed(name) for name in ("tensorrt", "tensorrt_lean"))


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> CudaEngine:
    """See `Backend`. A plan is native code; the caller must have checked its digest."""
    target = Target.of(path, artifact)
    trt, gpu = _import(path, target), Gpu.find(device)
    target.check_gpu(path, gpu)
    with gpu:
        host_code = target.version_compatible and target.lean_runtime
        program = TensorRTProgram(trt, gpu, path, contract, _remedy(target), host_code=host_code)
    return CudaEngine(gpu, program, contract, f"TensorRT {trt.__version__}", program.largest[0] or 1)


def _remedy(target: Target) -> str:
    """What the user can do if TensorRT refuses a plan."""
    lean = f"pip install tensorrt-lean=={target.tensorrt}, or " if target.version_compatible else ""
    return f"{lean}export again on this machine"


def _import(path: Path, target: Target) -> Any:
    """Import TensorRT, or its lean runtime if the plan allows that, in a version that runs the plan."""
    found = []
    for name in ("tensorrt", "tensorrt_lean") if target.version_compatible else ("tensorrt",):
        with suppress(ImportError, OSError):  # OSError: a library that it loads itself
            found.append(import_module(name))
    if not found:
        raise EngineError(f"TensorRT is not installed: {install('trt')}")
    trt = min(found, key=lambda module: module.__version__ != target.tensorrt)
    target.check_version(path, trt.__version__)
    return trt
