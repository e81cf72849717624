"""ONNX Runtime on a GPU, with our stream, our buffers, and CUDA graphs that ONNX Runtime records.

What the options do: onnxruntime.ai, "CUDA Execution Provider" (device_id, use_tf32, user_compute_stream,
enable_cuda_graph, cudnn_conv_algo_search, arena_extend_strategy); for those of a run, see
include/onnxruntime/core/session/onnxruntime_run_options_config_keys.h (gpu_graph_id,
disable_synchronize_execution_providers). A run for which a CUDA graph is wanted does two warm-up runs, the recording
and the first replay by itself (docs/cuda_plugin_ep/cuda_plugin_ep_design.md, 5.4.1). Releases before
microsoft/onnxruntime pull request 28686 wait for the stream in a replay; batches overlap less there, and nothing else
changes.
"""

import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spai_runtime.engines.base import GPU_BATCH_SIZE, Contract, DeviceBusyError, DeviceLostError
from spai_runtime.engines.cuda.engine import CudaEngine
from spai_runtime.engines.cuda.gpu import CAPTURE_ERRORS, Gpu, import_cupy
from spai_runtime.engines.cuda.program import Shape
from spai_runtime.engines.cuda.recording import RECORDINGS
from spai_runtime.engines.cuda_libraries import check_provider, import_for_cuda
from spai_runtime.engines.onnx_session import CUDA, import_runtime, open_session
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.manifest import Artifact
from spai_runtime.text import excerpt

# What its messages say: of its arena, CUDA, cuBLAS and cuDNN; of a call that CUDA refuses while somebody records.
_OUT_OF_MEMORY = re.compile("failed to allocate memory|out of memory|alloc_failed", re.IGNORECASE)
_CUDA_FAILED = re.compile("(cuda|cublas|cudnn) (failure|error)", re.IGNORECASE)
_NO_CUDNN = re.compile("cudnn is (unavailable|not available)", re.IGNORECASE)
_BUSY = re.compile(r"cuda failure 90[0-8]\b", re.IGNORECASE)
_NO_GRAPH = "-1"
RECORDING_ATTEMPTS = 3


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> CudaEngine:  # noqa: ARG001
    """See `Backend`."""
    runtime, gpu = import_for_cuda(), Gpu.find(device)
    with gpu:
        program = OnnxProgram(gpu, path, contract)
    return CudaEngine(gpu, program, contract, f"ONNX Runtime {runtime.__version__}", GPU_BATCH_SIZE)


class OnnxProgram:
    """A session on the current GPU; see `Program`. It has one stream, on which all its executions run.

    An encoder's runs can be recorded as CUDA graphs, because they have only a few shapes.
    """

    def __init__(self, gpu: Gpu, path: Path, contract: Contract) -> None:
        self.gpu, self.contract = gpu, contract
        self.largest: Sequence[int | None] = [None] * len(contract.input.shape)
        self.records = contract.input.dtype == "uint8"
        self.stream = import_cupy().cuda.Stream(non_blocking=True)
        self.lock = threading.Lock()  # runs on one stream follow each other
        self.graph_ids = itertools.count(1)  # 0 is ONNX Runtime's own
        self.session: Any = self._open(path)

    def execution(self, stream: Any) -> "OnnxExecution":  # noqa: ARG002  a session has its own
        """See `Program`."""
        return OnnxExecution(self)

    def close(self) -> None:
        """See `Program`. The stream must outlive the session."""
        self.session = None

    def error(self, error: Exception) -> EngineError:
        """The error to raise for an exception of ONNX Runtime's."""
        text = " ".join(str(error).split())
        if _BUSY.search(text):
            return DeviceBusyError(self.gpu.device, excerpt(text))
        if _OUT_OF_MEMORY.search(text):
            return self.gpu.full(text)
        if _NO_CUDNN.search(text):
            return EngineError(f"ONNX Runtime finds no cuDNN, which this graph needs: {install('gpu')}")
        if _CUDA_FAILED.search(text):
            return DeviceLostError(self.gpu.device, text)
        return EngineError(f"ONNX Runtime failed on {self.gpu.device}: {excerpt(text)}")

    def _open(self, path: Path) -> Any:
        try:
            session = open_session(path, self.contract, CUDA, self._options())
        except EngineError as refusal:
            error = refusal.__cause__
            if isinstance(error, Exception) and _OUT_OF_MEMORY.search(str(error)):
                raise self.error(error) from error
            raise
        check_provider(path, session)
        return session

    def _options(self) -> dict[str, str]:
        options = {
            "device_id": str(self.gpu.index),
            "user_compute_stream": str(self.stream.ptr),
            "use_tf32": "0",  # its 10 bits of mantissa ruin the spectral filter
            "cudnn_conv_algo_search": "HEURISTIC",  # a search by the clock finds another kernel, and digits, every time
            "arena_extend_strategy": "kSameAsRequested",  # the arena is not alone on the GPU
        }
        return {**options, "enable_cuda_graph": "1"} if self.records else options


class _Prepared(NamedTuple):
    binding: Any
    options: Any


class _Recorded(threading.local):
    """The runs that a thread recorded. ONNX Runtime replays a CUDA graph only in that thread (PerThreadContext)."""

    def __init__(self) -> None:
        self.runs: dict[object, _Prepared] = {}


class OnnxExecution:
    """See `Execution`."""

    def __init__(self, program: OnnxProgram) -> None:
        self.stream = program.stream
        self._program = program
        self._recorded = _Recorded()
        self._graph_ids: list[int] = []
        self._options = _run_options(_NO_GRAPH if program.records else None)

    def prepare(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`. Nothing is recorded later, because other threads would then have to wait."""
        binding, options = self._bind(shape, source, targets), self._options
        if self._program.records:
            options = self._record(binding)
        else:
            self._run(binding, options)
        self.stream.synchronize()
        self._recorded.runs[shape, source, *targets] = _Prepared(binding, options)

    def enqueue(self, shape: Shape, source: int, targets: Sequence[int]) -> None:
        """See `Execution`."""
        prepared = self._recorded.runs.get((shape, source, *targets))
        if prepared:
            self._run(*prepared)
        else:
            self._run(self._bind(shape, source, targets), self._options)

    def recorded(self, shape: Shape, source: int, targets: Sequence[int]) -> bool:
        """See `Execution`."""
        prepared = self._recorded.runs.get((shape, source, *targets))
        return prepared is not None and prepared.options is not self._options

    def close(self) -> None:
        """See `Execution`. Releases of ONNX Runtime that cannot give graphs back keep them until the session ends."""
        release = getattr(self._program.session, "release_captured_graph", None)  # since 1.31
        with self._program.lock:
            while self._graph_ids:
                graph = self._graph_ids.pop()
                try:
                    if release is not None:
                        release(graph)
                except Exception as error:  # ONNX Runtime's exceptions have no common base
                    raise self._program.error(error) from error

    def _bind(self, shape: Shape, source: int, targets: Sequence[int]) -> Any:
        contract, index = self._program.contract, self._program.gpu.index
        binding = self._program.session.io_binding()
        binding.bind_input(contract.input.name, "cuda", index, np.dtype(contract.input.dtype), shape, source)
        for output, wanted, target in zip(contract.outputs, contract.output_shapes(shape), targets, strict=True):
            binding.bind_output(output.name, "cuda", index, np.dtype(output.dtype), wanted, target)
        return binding

    def _run(self, binding: Any, options: Any) -> None:
        try:
            with self._program.lock:
                self._program.session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise self._program.error(error) from error

    def _record(self, binding: Any) -> Any:
        """Record a run, unless something outside our engines spoils it. :returns: the options to go on with"""
        for _ in range(RECORDING_ATTEMPTS):
            self._graph_ids.append(next(self._program.graph_ids))
            options = _run_options(str(self._graph_ids[-1]))
            with RECORDINGS.alone():
                if self._recorded_with(binding, options):
                    return options
        self._run(binding, self._options)
        return self._options

    def _recorded_with(self, binding: Any, options: Any) -> bool:
        try:
            self._run(binding, options)
        except EngineError as error:
            if not (self._end_capture() or isinstance(error, DeviceBusyError)):
                raise
            return False
        return True

    def _end_capture(self) -> bool:
        """End a capture that ONNX Runtime left open when it gave up; otherwise nothing would run on the stream.

        :returns: whether the recording was spoilt; for that, cuBLAS and others raise another error than CUDA
        """
        failed = import_cupy().cuda.runtime.CUDARuntimeError
        try:
            self.stream.end_capture()
        except failed as error:
            return error.status in CAPTURE_ERRORS
        return False


def _run_options(graph: str | None) -> Any:
    """The options of a run.

    :param graph: the CUDA graph that the run uses, or NO_GRAPH; None if the session has no graphs
    """
    options = import_runtime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # a run returns when it is queued
    if graph is not None:
        options.add_run_config_entry("gpu_graph_id", graph)
    return options
