"""The ONNX Runtime engine."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from spai_runtime.engines import Array, Contract, Tensor
from spai_runtime.engines.external import has_external_data
from spai_runtime.errors import EngineError

CPU_BATCH_SIZE = 2  # larger ones leave the cache (benchmarks/test_encoder.py, two cores)
CUDA_BATCH_SIZE = 32  # not measured yet

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}

_INSTALL = {
    "cpu": "ONNX Runtime is not installed: pip install 'spai-toolkit[cpu]'",
    "cuda": "this ONNX Runtime has no CUDA: pip install 'spai-toolkit[gpu]' in an environment without onnxruntime",
}


class OnnxEngine:
    """A graph in ONNX Runtime, on the CPU or, with onnxruntime-gpu, on CUDA.

    :param device: `auto` takes CUDA where this ONNX Runtime has it
    :raises EngineError: see `load_engine`
    """

    def __init__(self, path: Path, contract: Contract, device: str = "auto") -> None:
        _refuse_external_data(path)
        provider, options = _provider(device)
        on_cpu = provider == "CPUExecutionProvider"
        self.device = "cpu" if on_cpu else f"cuda:{options['device_id']}"
        self.batch_size = CPU_BATCH_SIZE if on_cpu else CUDA_BATCH_SIZE
        self._session = _session(path, provider, options)
        _check_contract(path, self._session, contract)
        self._input = contract.input.name
        self._outputs = [output.name for output in contract.outputs]

    def run(self, batch: Array) -> list[Array]:
        """A batch of one runs as two: ONNX Runtime multiplies a single row in another order, and a view's features
        must not depend on what else is in its batch (an interrupted run resumes to the same digits).
        """
        alone = len(batch) == 1
        outputs = self._session.run(self._outputs, {self._input: np.repeat(batch, 2, axis=0) if alone else batch})
        return [output[:1] if alone else output for output in outputs]

    def close(self) -> None:
        del self._session


def _provider(device: str) -> tuple[str, dict[str, str]]:
    runtime = _import()
    cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    kind, _, index = device.partition(":")
    if kind == "cpu" or (kind == "auto" and not cuda):
        return "CPUExecutionProvider", {}
    if kind not in ("auto", "cuda") or not (index or "0").isdigit():
        raise EngineError(f"no such device: {device}; use auto, cpu or cuda:0")
    if not cuda:
        raise EngineError(_INSTALL["cuda"])
    runtime.preload_dlls()
    return "CUDAExecutionProvider", {"device_id": index or "0", "use_tf32": "0"}  # TF32 ruins the spectral filter


def _session(path: Path, provider: str, options: dict[str, str]) -> Any:
    runtime = _import()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # what matters is raised
    settings.intra_op_num_threads = _cores()  # ONNX Runtime itself counts, and pins to, cores that it may not use
    try:
        session = runtime.InferenceSession(str(path), settings, providers=[(provider, options)])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise EngineError(f"ONNX Runtime refuses {path}: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != provider:
        raise EngineError(f"ONNX Runtime could not start {provider} for {path}; is the CUDA driver installed?")
    return session


def _cores() -> int:
    """Cores that this process may use, which a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_external_data(path: Path) -> None:
    try:
        external = has_external_data(path)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path} is not an ONNX graph: {error}") from error
    if external:
        raise EngineError(f"{path} keeps tensors in other files, which is refused: export it again as a single file")


def _check_contract(path: Path, session: Any, contract: Contract) -> None:
    """:raises EngineError: inputs or outputs are not those that detector.json implies"""
    wanted = (contract.input, *contract.outputs)
    values = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    for tensor in wanted:
        value = values.get(tensor.name)
        if value is None or not _fits(value, tensor):
            found = f"{value.name} {value.type} {tuple(value.shape)}" if value else f"none (it has {', '.join(values)})"
            raise EngineError(f"{path} does not match detector.json: it should have {tensor}, and has {found}")
    if extra := [value.name for value in session.get_inputs() if value.name != contract.input.name]:
        raise EngineError(f"{path} does not match detector.json: it also wants {', '.join(extra)}")


def _fits(value: Any, tensor: Tensor) -> bool:
    """What is dynamic in the contract must be dynamic in the graph, and what is fixed must be that number."""
    axes = [axis if isinstance(axis, int) else None for axis in value.shape]
    return _DTYPES.get(value.type) == tensor.dtype and axes == list(tensor.shape)


def _import() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise EngineError(_INSTALL["cpu"]) from error
    return onnxruntime
