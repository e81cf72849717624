"""The CUDA and cuDNN libraries that ONNX Runtime needs: loaded quietly, and named if they cannot be loaded."""

import ctypes
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from spai_runtime.engines.onnx_session import CUDA, has_cuda, import_runtime
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.text import excerpt

# Of Linux; Windows does not say which library is missing. The provider finds the functions of the first in the process.
_PROVIDER = ("libonnxruntime_providers_shared.so", ctypes.RTLD_GLOBAL), ("libonnxruntime_providers_cuda.so", 0)


def import_for_cuda() -> Any:
    """Import ONNX Runtime, with the CUDA and cuDNN libraries of other packages. :raises EngineError: it has no CUDA

    It prints which it does not find, on stdout, where results may be written; `check_provider` tells when it matters.
    """
    runtime = import_runtime()
    if not has_cuda():
        todo = f"{install('gpu')} in an environment without onnxruntime"
        raise EngineError(f"this ONNX Runtime has no CUDA: {todo}")
    with redirect_stdout(io.StringIO()):
        runtime.preload_dlls()
    return runtime


def check_provider(path: Path, session: Any) -> None:
    """Check that the session runs on CUDA.

    :param path: the graph's file
    :raises EngineError: the session runs on the CPU, since ONNX Runtime could not load the CUDA provider
    """
    if session.get_providers()[0] == CUDA:
        return
    reason = unloadable(import_runtime())
    if reason is None:
        raise EngineError(f"ONNX Runtime could not start {CUDA} for {path}; is the CUDA driver installed?")
    todo = "install the GPU's driver" if reason.startswith("libcuda.so") else install("gpu")
    raise EngineError(f"ONNX Runtime could not start {CUDA} ({reason}): {todo}")


def unloadable(runtime: Any) -> str | None:
    """The reason why the CUDA provider cannot be loaded, such as a missing library; None if no reason was found.

    ONNX Runtime goes on without the provider, and writes the reason only into a log.
    """
    folder = Path(runtime.__file__).parent / "capi"
    for name, mode in _PROVIDER:
        if (folder / name).exists():
            try:
                ctypes.CDLL(str(folder / name), mode)
            except OSError as error:
                return excerpt(str(error).removeprefix(f"{folder}/"))
    return None
