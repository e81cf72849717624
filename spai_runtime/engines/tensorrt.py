"""TensorRT: a plan that was built for this very version and kind of GPU."""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from spai_runtime.engines import Contract, Tensor
from spai_runtime.engines.cuda.engine import CudaEngine
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.tensorrt_execution import Loaded, TensorRTExecution
from spai_runtime.engines.tensorrt_log import log_of
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Plan

LEAN_RUNTIME = "lean_runtime"  # option of a build: the plan brings a runtime of its version along, which is code


class TensorRTEngine(CudaEngine):
    """A plan on one GPU.

    A plan is native code: whoever calls has checked its digest.

    :param device: `cuda:<index>`
    :param plan: what detector.json says of it
    :raises EngineError: see `load_engine`
    """

    def __init__(self, path: Path, contract: Contract, device: str, plan: Plan) -> None:
        trt, gpu = _import(path, plan), Gpu.find(device)
        _check_gpu(path, plan, gpu)
        with gpu:
            program = TensorRTProgram(trt, gpu, path, contract, plan)
        super().__init__(gpu, program, contract, f"TensorRT {trt.__version__}", program.largest[0] or 1)


class TensorRTProgram:
    """A plan on the current GPU; see `Program`."""

    def __init__(self, trt: Any, gpu: Gpu, path: Path, contract: Contract, plan: Plan) -> None:
        self._log = log_of(trt)
        self._runtime = _runtime(trt, self._log)
        self._runtime.engine_host_code_allowed = plan.version_compatible and bool(plan.options.get(LEAN_RUNTIME))
        engine = self._deserialise(gpu, path, plan)
        _check_contract(path, trt, engine, contract)
        self.largest = _largest(path, engine, contract.input)
        self._loaded = Loaded(trt, engine, contract, gpu, self._log)

    def execution(self, stream: Any) -> TensorRTExecution:
        """See `Program`."""
        return TensorRTExecution(self._loaded, stream)

    def close(self) -> None:
        """See `Program`. An engine must go before the runtime that made it."""
        del self._loaded
        del self._runtime

    def _deserialise(self, gpu: Gpu, path: Path, plan: Plan) -> Any:
        self._log.clear()
        engine = self._runtime.deserialize_cuda_engine(_content(path))
        if engine is not None:
            return engine
        if self._log.out_of_memory:
            raise gpu.full(self._log.last)
        lean = f"pip install tensorrt-lean=={plan.tensorrt}, or " if plan.version_compatible else ""
        raise EngineError(f"TensorRT refuses {path}: {self._log.last}; {lean}export again on this machine")


def _import(path: Path, plan: Plan) -> Any:
    """TensorRT, or its lean runtime for a plan that is for it too, in a version that runs the plan."""
    found = []
    for name in ("tensorrt", "tensorrt_lean") if plan.version_compatible else ("tensorrt",):
        with suppress(ImportError, OSError):  # OSError: a library that it loads itself
            found.append(import_module(name))
    if not found:
        raise EngineError("TensorRT is not installed: pip install 'spai-toolkit[trt]'")
    trt = min(found, key=lambda module: module.__version__ != plan.tensorrt)
    _check_version(path, plan, trt.__version__)
    return trt


def _check_version(path: Path, plan: Plan, installed: str) -> None:
    later = plan.version_compatible and _numbers(installed) > _numbers(plan.tensorrt)
    if installed != plan.tensorrt and not later:
        raise EngineError(
            f"{path} was built by TensorRT {plan.tensorrt}, and {installed} is installed: "
            f"pip install tensorrt=={plan.tensorrt}, or export again here"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _check_gpu(path: Path, plan: Plan, gpu: Gpu) -> None:
    if plan.compute_capability != gpu.capability:
        raise EngineError(
            f"{path} was built for {plan.gpu} ({plan.compute_capability}), and {gpu.device} is {gpu.name} "
            f"({gpu.capability}): run spai-export --trt on this machine"
        )


def _runtime(trt: Any, log: Any) -> Any:
    log.clear()
    try:
        return trt.Runtime(log)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise EngineError(f"TensorRT {trt.__version__} does not start: {log.last}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error


def _check_contract(path: Path, trt: Any, engine: Any, contract: Contract) -> None:
    """:raises EngineError: inputs or outputs are not those that detector.json implies"""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    wanted = {tensor.name: tensor for tensor in (contract.input, *contract.outputs)}
    for name, tensor in wanted.items():
        mode = trt.TensorIOMode.INPUT if tensor is contract.input else trt.TensorIOMode.OUTPUT
        if name not in names or engine.get_tensor_mode(name) != mode:
            raise _mismatch(path, f"it should have {tensor}, and has {', '.join(names)}")
        shape, dtype = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
        axes = tuple(axis if isinstance(axis, int) else -1 for axis in tensor.shape)
        if (dtype, shape) != (trt.DataType.UINT8 if tensor.dtype == "uint8" else trt.DataType.FLOAT, axes):
            raise _mismatch(path, f"it should have {tensor}, and has {name} {dtype} {shape}")
    if extra := sorted(set(names) - set(wanted)):
        raise _mismatch(path, f"it also has {', '.join(extra)}")


def _largest(path: Path, engine: Any, tensor: Tensor) -> Sequence[int | None]:
    """What the optimization profile allows of each dynamic axis, from 1 on."""
    least, _, largest = engine.get_tensor_profile_shape(tensor.name, 0)
    for axis, low in zip(tensor.shape, least, strict=True):
        if isinstance(axis, str) and low > 1:
            raise _mismatch(path, f"it takes {low} {axis} at least, and should take 1")
    return [int(high) if isinstance(axis, str) else None for axis, high in zip(tensor.shape, largest, strict=True)]


def _mismatch(path: Path, reason: str) -> EngineError:
    return EngineError(f"{path} does not match detector.json: {reason}")
