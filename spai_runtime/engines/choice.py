"""Which engine a graph and a device come to."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from spai_runtime.engines import Contract, DeviceEngine, Engine
from spai_runtime.engines.devices import gpus
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.engines.onnxruntime_cuda import OnnxCudaEngine
from spai_runtime.engines.replicas import Replicas
from spai_runtime.engines.tensorrt import TensorRTEngine
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Plan


def load(path: Path, contract: Contract, device: str, plan: Plan | None) -> Engine:
    """See `load_engine`."""
    assert device != "auto", "whoever calls has chosen"
    chosen = gpus(device)
    if path.suffix == ".onnx":
        if not chosen:
            return OnnxEngine(path, contract)
        return _on_each(chosen, lambda gpu: OnnxCudaEngine(path, contract, gpu))
    if path.suffix != ".plan":
        raise EngineError(f"{path} is of no kind that this version runs; .onnx and .plan are")
    if not chosen:
        raise EngineError(f"{path} runs on a GPU alone: give --device cuda:0, or the .onnx graph")
    if plan is None:
        raise EngineError(f"{path} is not described in detector.json, so nothing says what it was built for")
    return _on_each(chosen, lambda gpu: TensorRTEngine(path, contract, gpu, plan))


def _on_each(indices: tuple[int, ...], start: Callable[[str], DeviceEngine]) -> DeviceEngine:
    """One engine, or one that stands for several; those that were started are closed if another does not."""
    with ExitStack() as started:
        engines = []
        for index in indices:
            engines.append(start(f"cuda:{index}"))
            started.callback(engines[-1].close)
        started.pop_all()
    return Replicas(engines) if len(engines) > 1 else engines[0]
