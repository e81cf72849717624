"""ONNX Runtime in a child process with limits, for graphs from strangers.

The cost of a graph cannot be read from its file. A Loop may run 2^62 times, and a product of two small constants may
have any size, while its factors are only known when it runs; honest graphs have control flow and large constants too.
So nothing is judged beforehand: a graph runs in a process of its own, which is ended when it takes too much. The
encoder and the head each have a process, so that neither is charged for the other.

These are limits on memory and time. A graph that exploits a flaw in ONNX Runtime has the user's rights.
"""

import math
import os
from pathlib import Path

import msgspec

from spai_runtime.child import Child, ChildError, ChildMemoryError, ChildTimeError, Limits
from spai_runtime.cores import cores
from spai_runtime.engines.base import Array, Contract, HostEngine
from spai_runtime.engines.onnx_session import import_runtime
from spai_runtime.engines.onnxruntime import CPU_BATCH_SIZE
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Artifact

# Of one batch, and of loading the graph. A batch of two views of the published SPAI takes 1.5 s of two cores; one of
# the largest detector (0.4 billion parameters, 384 pixels) has ten times the operations.
MEMORY = 2 << 30  # bytes, beside COPIES of the graph
COPIES = 4  # ONNX Runtime parses the file, makes tensors of it, and packs these anew
SECONDS_OF_A_CORE = 120
SECONDS = 300  # by the clock

_STACK = 16 << 20  # bytes of address space that a thread of ONNX Runtime takes, with what glibc keeps for it
_ATTEMPTS = 3


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> "IsolatedEngine":  # noqa: ARG001
    """See `Backend`."""
    memory = MEMORY + COPIES * path.stat().st_size + _STACK * cores()
    return IsolatedEngine(path, contract, Limits(memory, SECONDS_OF_A_CORE * cores(), SECONDS))


class IsolatedEngine(HostEngine):
    """A graph in ONNX Runtime, in a process of its own; its outputs have the same digits as those of `OnnxEngine`.

    A batch that passes a limit ends the process and raises an EngineError; the next batch starts another process. After
    three batches in a row that took too long, no more processes are started: so a graph that makes every image wait
    costs a run minutes, and not days.

    :raises EngineError: the graph is refused, does not load within the limits, or ONNX Runtime is missing
    """

    device = "cpu"
    batch_size = CPU_BATCH_SIZE

    def __init__(self, path: Path, contract: Contract, limits: Limits) -> None:
        self.label = f"ONNX Runtime {import_runtime().__version__}, cpu, isolated"
        self._path, self._contract = path, contract
        settings = {"path": os.fsencode(path.absolute()).hex(), "contract": msgspec.to_builtins(contract)}
        self._child = Child("spai_runtime.engines.graph_service:serve", settings, limits)
        self._late = 0  # batches in succession that took too long
        try:
            self._child.start()
        except ChildError as error:
            raise self._refusal(error) from error

    def run(self, batch: Array) -> list[Array]:
        """See `Engine`. :raises EngineError: the graph passes a limit, fails, or gives wrong shapes or types"""
        if self._late == _ATTEMPTS:
            raise EngineError(f"{self._path} took too long {_ATTEMPTS} times, and is not run again")
        most = sum(4 * math.prod(shape) for shape in self._contract.output_shapes(batch.shape))  # float32
        try:
            _, outputs = self._child.ask(None, [batch], most=most)
        except ChildError as error:
            self._late = self._late + 1 if isinstance(error, ChildTimeError) else 0
            raise self._refusal(error) from error
        self._late = 0
        self._contract.check(self._path, outputs, batch.shape)
        return list(outputs)

    def close(self) -> None:
        """End the process."""
        self._child.close()
        del self._child  # which a request would start again

    def _refusal(self, error: ChildError) -> EngineError:
        smaller = "give a smaller --batch-size, or " if isinstance(error, ChildMemoryError) else ""
        trusted = "if you trust whoever made it, leave out --untrusted-engine"
        return EngineError(f"{self._path} was stopped, since {error}: {smaller}{trusted}")
