"""The table of engines: which back end runs which artifacts, on what, and in which order `auto` tries them.

A row names functions instead of importing them, so that a run loads the code of the engine that it takes and of no
other. A new engine is a file with two functions, and a row.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import cast

from spai_runtime.engines.base import Contract, DeviceEngine, Engine
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError
from spai_runtime.manifest import DEVICE, ONNX, TENSORRT, TENSORRT_RTX, Artifact, Precision

Load = Callable[[Path, Contract, str, Artifact], Engine]


@dataclass(frozen=True)
class Backend:
    """A row of the table.

    :param name: the value of `--backend` that selects it
    :param device: `cpu`, or `cuda`
    :param kinds: the kinds of artifacts that it runs
    :param precisions: the precisions that it runs, from the one that `auto` takes first to the one that it takes last
    :param probe: `module:function` → whether this machine has what the back end needs; it may say yes if only loading
        can tell
    :param load: `module:function` of (path of a graph or plan, its contract, `cpu` or `cuda:<index>`, the artifact that
        it belongs to) → Engine, or an EngineError that says in one sentence what to do
    :param computes: the lower precision that it uses for an encoder's large products; None leaves them as they are
    :param own: whether it runs only artifacts that were made for its device, as the artifact's `target` says
    """

    name: str
    device: str
    kinds: tuple[str, ...]
    precisions: tuple[Precision, ...]
    probe: str
    load: str
    computes: Precision | None = None
    own: bool = False

    def runs(self, artifact: Artifact) -> bool:
        """Whether it runs such an artifact. An artifact that was made for one device runs on no other."""
        device = artifact.target.get(DEVICE)
        made_for = device == self.device or (device is None and not self.own)
        return artifact.kind in self.kinds and artifact.precision in self.precisions and made_for

    def available(self) -> bool:
        """Whether its probe finds what it needs."""
        return cast("Callable[[], bool]", _named(self.probe))()

    def open(self, path: Path, contract: Contract, device: str, artifact: Artifact) -> Engine:
        """Open a graph on a CPU, a GPU, or several GPUs; one engine then stands for all of them.

        :param device: `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
        :raises EngineError: the library or the device is missing, or the graph is refused
        """
        load, indices = cast("Load", _named(self.load)), gpus(device)
        if len(indices) < 2:
            return load(path, contract, device, artifact)
        with ExitStack() as started:  # those that were started are closed if another does not
            engines = []
            for index in indices:
                engine = load(path, contract, f"{self.device}:{index}", artifact)
                started.callback(engine.close)
                engines.append(cast("DeviceEngine", engine))
            started.pop_all()
        from spai_runtime.engines.replicas import Replicas  # noqa: PLC0415  for several GPUs alone

        return Replicas(engines)


_FASTEST_FIRST: tuple[Precision, ...] = ("fp8", "int8", "fp16", "bf16", "fp32")

# In the order of `auto`. Precisions stand in the order in which their products are expected to be fast, which no
# benchmark of a GPU has shown yet, nor `make bench-cpu` in full. On a CPU, an int8 graph that was made for GPUs is
# slower than fp32, and ONNX Runtime multiplies fp16 in fp32.
BACKENDS: list[Backend] = [
    Backend(
        "tensorrt",
        "cuda",
        (TENSORRT,),
        _FASTEST_FIRST,
        "spai_runtime.engines.tensorrt:available",
        "spai_runtime.engines.tensorrt:load",
    ),
    Backend(
        "tensorrt-rtx",
        "cuda",
        (TENSORRT_RTX,),
        _FASTEST_FIRST,
        "spai_runtime.engines.tensorrt_rtx:available",
        "spai_runtime.engines.tensorrt_rtx:load",
    ),
    Backend(
        "onnxruntime",
        "cuda",
        (ONNX,),
        ("fp16", "bf16", "fp32", "int8", "fp8"),
        "spai_runtime.engines.onnx_session:has_cuda",
        "spai_runtime.engines.onnxruntime_cuda:load",
    ),
    Backend(
        "openvino",
        "cpu",
        (ONNX,),
        ("int8",),
        "spai_runtime.engines.openvino:available",
        "spai_runtime.engines.openvino:load",
        own=True,
    ),
    Backend(
        "openvino",
        "cpu",
        (ONNX,),
        ("bf16", "fp32"),
        "spai_runtime.engines.openvino:has_bf16",
        "spai_runtime.engines.openvino:load_bf16",
        computes="bf16",
    ),
    Backend(
        "onnxruntime",
        "cpu",
        (ONNX,),
        ("int8",),
        "spai_runtime.engines.onnx_session:has_int8",
        "spai_runtime.engines.onnxruntime:load",
        own=True,
    ),
    Backend(
        "openvino",
        "cpu",
        (ONNX,),
        ("fp32", "fp16"),
        "spai_runtime.engines.openvino:available",
        "spai_runtime.engines.openvino:load",
    ),
    Backend(
        "onnxruntime",
        "cpu",
        (ONNX,),
        ("fp32", "fp16", "int8", "bf16", "fp8"),
        "spai_runtime.engines.onnx_session:installed",
        "spai_runtime.engines.onnxruntime:load",
    ),
]

# What runs artifacts of whoever is not trusted: in a process with limits, and nothing that is native code. None is on
# a GPU, whose memory and time no process can be limited in.
ISOLATED: list[Backend] = [
    replace(row, load="spai_runtime.engines.isolated:load")
    for row in BACKENDS
    if (row.name, row.device, row.own) == ("onnxruntime", "cpu", False)
]


def backends(name: str | None = None, *, untrusted: bool = False) -> Sequence[Backend]:
    """The rows of a back end; None gives all rows.

    :param untrusted: whether to give the rows for artifacts from strangers; there may be none
    :raises EngineError: no back end has that name
    """
    rows = [row for row in BACKENDS if name in (None, row.name)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.name for row in BACKENDS))
        raise EngineError(f"there is no back end {name}; --backend takes one of {known}")
    return [row for row in ISOLATED if name in (None, row.name)] if untrusted else rows


def _named(reference: str) -> object:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
