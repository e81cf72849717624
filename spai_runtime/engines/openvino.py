"""The back end for OpenVINO on the CPU."""

import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from spai_runtime.engines import openvino_bf16
from spai_runtime.engines.base import Array, Contract, HostEngine, Tensor
from spai_runtime.engines.external import refuse_external_data
from spai_runtime.engines.installed import is_installed
from spai_runtime.engines.openvino_compiled import Compiled
from spai_runtime.engines.streams import share_of
from spai_runtime.errors import EngineError
from spai_runtime.files.digest import sha256_of
from spai_runtime.install import install
from spai_runtime.manifest import Artifact
from spai_runtime.text import excerpt

CPU_BATCH_SIZE = 2  # that of ONNX Runtime; larger ones are not faster in fp32 (two cores)
_NARROW_BATCH_SIZE = 4  # where large products have 8 or 16 bits: the best of 1, 2, 4 and 8, but for some memory
_DTYPES = {"u8": "uint8", "f32": "float32"}


def available() -> bool:
    """Whether OpenVINO is installed."""
    return is_installed("openvino")


def has_bf16() -> bool:
    """Whether OpenVINO is installed, and this processor multiplies bf16 in hardware (AVX-512 BF16 or AMX)."""
    return available() and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> "OpenVinoEngine":  # noqa: ARG001
    """See `Backend`."""
    if artifact.precision == "fp32":
        return OpenVinoEngine(path, contract)
    return OpenVinoEngine(path, contract, kept=_kept(path, artifact))


def load_bf16(path: Path, contract: Contract, device: str, artifact: Artifact) -> "OpenVinoEngine":  # noqa: ARG001
    """See `Backend`. The large products of an encoder in fp32 are computed in bf16; a graph in bf16 runs as it is."""
    lowered = artifact.precision == "fp32" and path.name == artifact.encoder.file
    return OpenVinoEngine(path, contract, bf16=lowered, kept=_kept(path, artifact, lowered=lowered))


class OpenVinoEngine(HostEngine):
    """A graph in OpenVINO, which computes in the types that the graph has.

    A view's features are the same bits whatever else is in its batch, so an interrupted run resumes to the same digits.

    :param bf16: whether the large products of an encoder in fp32 are computed in bf16, as `openvino_bf16` says
    :param kept: where to keep an encoder that was compiled, if its large products have 8 or 16 bits; a graph in fp32 is
        not kept, since reading it takes as long as compiling it
    :raises EngineError: OpenVINO is missing, or the graph is refused
    """

    device = "cpu"
    batch_size = CPU_BATCH_SIZE

    def __init__(self, path: Path, contract: Contract, *, bf16: bool = False, kept: Compiled | None = None) -> None:
        self.label, self._path, self._contract = f"OpenVINO {_release()}, cpu", path, contract
        share = share_of(contract)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # else it computes in bf16 what the graph has in fp32
            "NUM_STREAMS": share.streams,
            "INFERENCE_NUM_THREADS": share.streams * share.threads,  # it counts cores that this process may not use
            "ENABLE_CPU_PINNING": False,  # so that a decoder, or another detector, may have a core meanwhile
        }
        self._compiled, lowered = _compiled(path, contract, settings, kept, bf16=bf16)
        if lowered:
            self.label += f" ({_processor()})"  # what is rounded, and how products add up, is the processor's
            self.computes = "bf16"
        if kept is not None:
            self.batch_size = _NARROW_BATCH_SIZE
        self.streams = share.streams
        self._requests = threading.local()  # which one thread at a time may use

    def run(self, batch: Array) -> list[Array]:
        """Run a batch. :raises EngineError: the graph fails on this batch, or its outputs have wrong shapes or types"""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        try:
            results = self._requests.own.infer({self._contract.input.name: batch})
        except RuntimeError as error:
            raise EngineError(f"{self._path} fails in OpenVINO: {_reason(error)}") from error
        outputs: list[Array] = [results[output.name] for output in self._contract.outputs]
        self._contract.check(self._path, outputs, batch.shape)
        return outputs

    def close(self) -> None:
        del self._requests
        del self._compiled


def _import() -> Any:
    """Import OpenVINO so that it sends no data: its import would send an event, and keep a number for the machine.

    :raises EngineError: it is not installed
    """
    silenced = "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not there
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise EngineError(f"OpenVINO is not installed: {install('openvino')}") from error
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    return openvino


@cache
def _core() -> Any:
    """The one Core of the process, which is never freed.

    A Core sets an alternate stack for signals, and restores the earlier stack when it is freed. If two are freed in the
    order in which they were made, the second restores a stack that is unmapped by then: the next signal, such as that
    of a child that ended, is written over whatever lies there.
    """
    return _import().Core()


def _release() -> str:
    """The installed release. :raises EngineError: OpenVINO is not installed"""
    return str(_import().__version__).partition("-")[0]


def _processor() -> str:
    return str(_core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


def _kept(path: Path, artifact: Artifact, *, lowered: bool = False) -> Compiled | None:
    """The place for what is compiled of an encoder; None for a head, which compiles in no time.

    :param lowered: whether `openvino_bf16` changes it
    """
    if path.name != artifact.encoder.file:
        return None
    machine = f"{_release()} {_processor()}"
    return Compiled(artifact.encoder.sha256, machine, sha256_of(Path(openvino_bf16.__file__)) if lowered else "")


def _compiled(
    path: Path, contract: Contract, settings: Mapping[str, Any], kept: Compiled | None, *, bf16: bool
) -> tuple[Any, bool]:
    """Compile a graph, or load what was kept.

    :returns: openvino.CompiledModel, and whether products that were in fp32 are in bf16
    :raises EngineError: the graph is refused
    """
    known = kept.load(_core(), settings) if kept is not None else None
    if known is not None:
        _check_contract(path, known, contract)
        return known, bf16
    refuse_external_data(path)
    model = _read(path)
    _check_contract(path, model, contract)
    lowered = bf16 and openvino_bf16.lower(model) > 0
    try:
        compiled = _core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO refuses {path}: {_reason(error)}") from error
    if kept is not None and lowered == bf16:  # of a graph without large products nothing is kept
        kept.save(compiled)
    return compiled, lowered


def _read(path: Path) -> Any:
    """Read the file as an ONNX graph, and as no other format that OpenVINO reads."""
    from openvino.frontend import FrontEndManager  # noqa: PLC0415

    onnx = FrontEndManager().load_by_framework("onnx")
    try:
        return onnx.convert(onnx.load(str(path)))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO refuses {path}: {_reason(error)}") from error


def _check_contract(path: Path, model: Any, contract: Contract) -> None:
    """Check inputs and outputs.

    :param model: an openvino.Model or CompiledModel
    :raises EngineError: they are not those that detector.json implies"""
    found = {value.any_name: value for value in (*model.inputs, *model.outputs)}
    for tensor in (contract.input, *contract.outputs):
        value = found.get(tensor.name)
        if value is None or not _fits(value, tensor):
            has = _shown(value) if value is not None else f"none (it has {', '.join(found)})"
            raise EngineError(f"{path} does not match detector.json: it should have {tensor}, and has {excerpt(has)}")
    if extra := [value.any_name for value in model.inputs if value.any_name != contract.input.name]:
        raise EngineError(f"{path} does not match detector.json: it also wants {excerpt(', '.join(extra))}")


def _fits(value: Any, tensor: Tensor) -> bool:
    """Whether dynamic axes of the contract are dynamic in the graph, and fixed axes have the contract's number."""
    axes = [None if axis.is_dynamic else axis.get_length() for axis in value.partial_shape]
    wanted = [axis if isinstance(axis, int) else None for axis in tensor.shape]
    return _DTYPES.get(value.element_type.get_type_name()) == tensor.dtype and axes == wanted


def _shown(value: Any) -> str:
    return f"{value.any_name} {value.element_type.get_type_name()} {value.partial_shape}"


def _reason(error: Exception) -> str:
    """The last line of the message that says something; the lines before it name places in OpenVINO's source."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return excerpt(lines[-1] if lines else "it gives no reason")
