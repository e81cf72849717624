"""ONNX graphs in ONNX Runtime, with the checks before and after they are loaded."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spai_runtime.cores import cores
from spai_runtime.engines.base import Contract, Tensor
from spai_runtime.engines.external import refuse_external_data
from spai_runtime.engines.installed import is_installed
from spai_runtime.engines.processor import multiplies_int8
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.text import excerpt

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_FATAL = 4  # severity from which on ONNX Runtime writes to stderr, in colours; what matters is raised
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_CAST_TO_BFLOAT16 = b"\n\x02to\x18\x10"  # an AttributeProto: name (1) "to", i (3) 16


def import_runtime() -> Any:
    """Import ONNX Runtime so that it sends no data: since 1.29 its import would, unless an environment variable is set.

    :raises EngineError: it is not installed
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is not installed: {install('cpu')}") from error
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def installed() -> bool:
    """Whether ONNX Runtime is installed."""
    return is_installed("onnxruntime")


def has_int8() -> bool:
    """Whether ONNX Runtime is installed, and this processor multiplies int8 faster than fp32."""
    return installed() and multiplies_int8()


def has_cuda() -> bool:
    """Whether ONNX Runtime is installed and was built for CUDA."""
    return installed() and CUDA in import_runtime().get_available_providers()


def open_session(
    path: Path, contract: Contract, provider: str, options: Mapping[str, str], *, rewrites: bool = True
) -> Any:
    """Open a graph as an InferenceSession.

    :param provider: name of the provider; ONNX Runtime may leave CUDA's out, see `cuda_libraries`
    :param options: the provider's options
    :param rewrites: whether ONNX Runtime may fuse and move operators
    :raises EngineError: the file or the provider is refused, or the graph is not what detector.json implies
    """
    refuse_external_data(path)
    session = _session(path, provider, options, rewrites=rewrites, patterns=contract.window is None)
    _check_contract(path, session, contract)
    return session


def _session(path: Path, provider: str, options: Mapping[str, str], *, rewrites: bool, patterns: bool) -> Any:
    runtime = import_runtime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = cores()  # ONNX Runtime itself counts, and pins to, cores that it may not use
    # Its threads would spin between two runs, on cores that could decode the next image or run another detector.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern is one block for all that a run makes. Each shape of an input gets one at its second run, beside what
    # its first run took: of windows, which have up to four shapes, that would be the memory of several.
    settings.enable_mem_pattern = patterns
    if not rewrites:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    chosen = [(provider, dict(options))]
    try:  # without its fallback, which prints, and goes on without the provider
        return runtime.InferenceSession(str(path), settings, providers=chosen, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise _refusal(path, provider, str(error)) from error


def _refusal(path: Path, provider: str, error: str) -> EngineError:
    if provider == CPU and "NOT_IMPLEMENTED" in error and _holds_bfloat16(path):
        todo = "give --device cuda:0, or export with --precision fp16"
        return EngineError(f"{path} holds bfloat16, which ONNX Runtime runs on CUDA alone: {todo}")
    if "graph capture" in error:  # it is asked for, and no part of the graph may be left to the CPU
        version = import_runtime().__version__
        todo = "pip install --upgrade onnxruntime-gpu, or export again with --attention plain"
        return EngineError(f"ONNX Runtime {version} would run a part of {path} on the CPU: {todo}")
    return EngineError(f"ONNX Runtime refuses {path}: {_reason(error)}")


def failure(path: Path, error: Exception) -> EngineError:
    """The error to raise for an exception of ONNX Runtime's while a graph runs."""
    return EngineError(f"{path} fails in ONNX Runtime: {_reason(str(error))}")


def _reason(error: str) -> str:
    """The first line of ONNX Runtime's message, shortened, since the message may quote a graph at any length."""
    return excerpt((error.splitlines() or ["it gives no reason"])[0])


def _holds_bfloat16(path: Path) -> bool:
    """Whether the graph casts anything to bfloat16; pixels and features are never cast to it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_CAST_TO_BFLOAT16) >= 0


def _check_contract(path: Path, session: Any, contract: Contract) -> None:
    """Check inputs and outputs. :raises EngineError: they are not those that detector.json implies"""
    wanted = (contract.input, *contract.outputs)
    values = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    for tensor in wanted:
        value = values.get(tensor.name)
        if value is None or not _fits(value, tensor):
            found = excerpt(_shown(value) if value else f"none (it has {', '.join(values)})")
            raise EngineError(f"{path} does not match detector.json: it should have {tensor}, and has {found}")
    if extra := [value.name for value in session.get_inputs() if value.name != contract.input.name]:
        raise EngineError(f"{path} does not match detector.json: it also wants {excerpt(', '.join(extra))}")


def _shown(value: Any) -> str:
    return f"{value.name} {value.type} {tuple(value.shape)}"


def _fits(value: Any, tensor: Tensor) -> bool:
    """Whether dynamic axes of the contract are dynamic in the graph, and fixed axes have the contract's number."""
    axes, wanted = (
        [axis if isinstance(axis, int) else None for axis in shape] for shape in (value.shape, tensor.shape)
    )
    return _DTYPES.get(value.type) == tensor.dtype and axes == wanted
