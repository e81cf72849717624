"""The back end for ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np

from spai_runtime.engines.base import Array, Contract, HostEngine
from spai_runtime.engines.onnx_session import CPU, failure, import_runtime, open_session
from spai_runtime.engines.streams import share_of
from spai_runtime.manifest import Artifact

CPU_BATCH_SIZE = 2  # larger ones leave the cache (benchmarks/test_encoder.py, two cores)


class OnnxEngine(HostEngine):
    """A graph in ONNX Runtime; batches that run at the same time share one pool of threads.

    :param rewrites: see `open_session`
    :raises EngineError: ONNX Runtime is missing, or the graph is refused
    """

    device = "cpu"
    batch_size = CPU_BATCH_SIZE

    def __init__(self, path: Path, contract: Contract, *, rewrites: bool = True) -> None:
        self.label = f"ONNX Runtime {import_runtime().__version__}, cpu"
        self.streams = share_of(contract).streams
        self._session = open_session(path, contract, CPU, {}, rewrites=rewrites)
        self._path, self._contract = path, contract
        self._outputs = [output.name for output in contract.outputs]

    def run(self, batch: Array) -> list[Array]:
        """Run a batch. A batch of one runs as two: ONNX Runtime multiplies a single row in another order, and a view's
        features must not depend on what else is in its batch (an interrupted run resumes to the same digits). A window
        always runs alone, so it is not doubled.

        :raises EngineError: the graph fails on this batch, or its outputs have wrong shapes or types
        """
        session, alone = self._session, len(batch) == 1 and self._contract.window is None
        given = np.repeat(batch, 2, axis=0) if alone else batch
        try:
            outputs: list[Array] = session.run(self._outputs, {self._contract.input.name: given})
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise failure(self._path, error) from error
        self._contract.check(self._path, outputs, given.shape)
        return [output[:1] if alone else output for output in outputs]

    def close(self) -> None:
        del self._session


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> OnnxEngine:  # noqa: ARG001
    """See `Backend`."""
    return OnnxEngine(path, contract)
