"""TensorRT for RTX: a plan for many kinds of GPU; the GPU that runs it compiles the rest."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spai_runtime.engines.base import Contract
from spai_runtime.engines.cuda.engine import CudaEngine
from spai_runtime.engines.cuda.gpu import Gpu, import_cupy
from spai_runtime.engines.installed import absence, is_installed
from spai_runtime.engines.runtime_cache import RuntimeCache
from spai_runtime.engines.tensorrt_program import TensorRTProgram
from spai_runtime.engines.tensorrt_target import RtxTarget
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.manifest import Artifact

_INSTALL = install("rtx")

log = logging.getLogger("spai_runtime")


def available() -> bool:
    """Whether TensorRT for RTX is installed."""
    return is_installed("tensorrt_rtx")


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> CudaEngine:
    """See `Backend`. A plan is native code; the caller must have checked its digest."""
    if not is_installed("cupy"):
        raise EngineError(f"CuPy is not installed: {_INSTALL}")
    target, trt, gpu = RtxTarget.of(path, artifact), import_rtx(), Gpu.find(device)
    (graph,) = (graph for graph in (artifact.encoder, artifact.head) if graph.file == path.name)
    driver = int(import_cupy().cuda.runtime.driverGetVersion())
    cache = RuntimeCache.of(graph.sha256, trt.__version__, gpu.name, gpu.capability, str(driver))
    with gpu:
        program = RtxProgram(trt, gpu, path, contract, target, cache)
    label = f"TensorRT for RTX {trt.__version__} on {gpu.name}, CUDA {driver // 1000}.{driver % 1000 // 10}"
    return CudaEngine(gpu, program, contract, label, program.largest[0] or 1)


class RtxProgram(TensorRTProgram):
    """A plan of TensorRT for RTX on the current GPU; see `TensorRTProgram`.

    :param cache: the cache for what is compiled for this GPU
    """

    def __init__(
        self, trt: Any, gpu: Gpu, path: Path, contract: Contract, target: RtxTarget, cache: RuntimeCache
    ) -> None:
        self._path, self._target, self._cache = path, target, cache
        super().__init__(trt, gpu, path, contract, "export again")

    def admit(self, path: Path, plan: bytes) -> None:
        """Check the plan's header. :raises EngineError: this release, GPU or driver does not run the plan"""
        runtime, validity = self._runtime, self.trt.EngineValidity
        found, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
        causes = [text for bit, text in self._causes().items() if int(diagnostics) & int(bit)]
        reason = "; ".join(causes) or self.log.last
        if found == validity.INVALID:
            raise EngineError(f"{path} does not run here: {reason}")
        if found == validity.SUBOPTIMAL:
            log.warning("%s may be slow here: %s", path, reason)

    def configure(self, config: Any) -> None:
        """Set options so that digits are the same in every run: no kernel is replaced when a better one is compiled."""
        super().configure(config)
        trt = self.trt
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # we record them ourselves
        self._cache.attach(config)

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """Keep what is compiled during the block for the next time."""
        started, known = time.perf_counter(), self._cache.known
        if not known:
            log.info("compiling %s for %s, once", self._path, self.gpu.name)
        yield
        self._cache.known = True
        self._cache.save()
        if not known:
            log.info("compiled %s in %.0f s", self._path, time.perf_counter() - started)

    def can_record(self, context: Any, stream: Any) -> bool:
        """See `TensorRTProgram`; TensorRT for RTX can answer this."""
        return bool(context.is_stream_capturable(stream.ptr))

    def close(self) -> None:
        """See `Program`. The cache is saved again, since batch sizes after `first_run` may have been compiled too."""
        self._cache.save()
        super().close()

    def _causes(self) -> Mapping[Any, str]:
        """A sentence for each diagnostic of TensorRT for RTX; the diagnostics are bits of a number."""
        target, gpu, found = self._target, self.gpu, self.trt.EngineInvalidityDiagnostics
        capabilities = ", ".join(target.compute_capabilities)
        return {
            found.VERSION_MISMATCH: (
                f"it was built by TensorRT for RTX {target.tensorrt_rtx}, and {self.trt.__version__} is installed: "
                f"pip install tensorrt-rtx=={target.tensorrt_rtx}, or export again"
            ),
            found.UNSUPPORTED_CC: (
                f"it is for GPUs of compute capability {capabilities}, and {gpu.device} is {gpu.name} "
                f"({gpu.capability}): export for it with --trt-for gpu, or give --engine encoder.onnx"
            ),
            found.OLD_CUDA_DRIVER: "the driver of the GPU is too old for it: install a newer one",
            found.OLD_CUDA_RUNTIME: f"the CUDA runtime is too old for it: {_INSTALL}",
            found.INSUFFICIENT_GPU_MEMORY: f"{gpu.device} has too little memory for it: free some, or take another GPU",
            found.MALFORMED_ENGINE: (
                f"it is no plan of TensorRT for RTX {self.trt.__version__}, or it is damaged: export again"
            ),
            found.CUDA_ERROR: f"CUDA fails on {gpu.device} ({self.log.last}): check the driver",
        }


def import_rtx() -> Any:
    """Import TensorRT for RTX. :raises EngineError: it is not installed"""
    try:
        import tensorrt_rtx  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: a library that it loads by itself
        raise EngineError(f"{absence(error, 'tensorrt_rtx', 'TensorRT for RTX')}: {_INSTALL}") from error
    return tensorrt_rtx
