"""Which artifact of a directory runs by which back end on what: everything that could, from the best to the last."""

from collections.abc import Sequence
from dataclasses import dataclass

from spai_runtime.engines import Backend, backends
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError, GraphRefusedError
from spai_runtime.exported import Exported
from spai_runtime.manifest import ONNX, Artifact, Precision


@dataclass(frozen=True)
class Requested:
    """What whoever loads a detector asks for.

    :param device: `auto` (the best that loads), `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
    :param backend: that runs, and no other; None is any
    :param precision: that the encoder's large products are computed in; None is the fastest whose scores are those of
        fp32
    :param untrusted: whoever made the directory is not trusted: graphs run within limits, and nothing else does
    """

    device: str = "auto"
    backend: str | None = None
    precision: Precision | None = None
    untrusted: bool = False


@dataclass(frozen=True)
class Candidate:
    """An artifact, and a back end and a device that could run it."""

    artifact: Artifact
    backend: Backend
    device: str

    @property
    def precision(self) -> Precision:
        """That the large products of the encoder are computed in, as far as it has any."""
        return self.backend.computes or self.artifact.precision

    @property
    def lowered(self) -> bool:
        """Whether that is another one than the artifact's."""
        return self.precision != self.artifact.precision


def candidates(exported: Exported, wanted: Requested, *, here: bool = True) -> Sequence[Candidate]:
    """All that could run, from the best to the last, in the order of the table of engines.

    A back end that is not here is passed over where another one runs the artifact, unless GPUs were asked for by name.

    :param here: whether that is so; else they are among the others
    :raises EngineError: there is none
    :raises GraphRefusedError: nothing that was asked for can be held within limits
    """
    device = None if wanted.device == "auto" else "cuda" if gpus(wanted.device) else "cpu"
    rows = [row for row in backends(wanted.backend, untrusted=wanted.untrusted) if device in (None, row.device)]
    pairs = [
        Candidate(artifact, row, _device(row, wanted.device))
        for row in rows
        for artifact in _runnable(row, exported.artifacts)
    ]
    found = [one for one in pairs if _asked_for(one, exported, wanted)]
    if here and device != "cuda":
        found = [one for one in found if one is found[-1] or _worth_trying(one, found)]
    if not found:
        raise _untrusted(exported, wanted) if wanted.untrusted else _nothing_runs(exported, wanted)
    return _each_once(found)


def _runnable(row: Backend, artifacts: Sequence[Artifact]) -> Sequence[Artifact]:
    """What a back end runs of some artifacts, in its order of precisions."""
    return sorted(filter(row.runs, artifacts), key=lambda artifact: row.precisions.index(artifact.precision))


def _asked_for(candidate: Candidate, exported: Exported, wanted: Requested) -> bool:
    """A file that was named runs as it is; a precision that was asked for, and no other."""
    if wanted.precision is not None:
        return candidate.precision == wanted.precision
    return exported.named is None or not candidate.lowered


def _worth_trying(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Where nothing else runs an artifact, its only back end is tried: the user is then told what is missing."""
    alone = [one for one in others if one.artifact is candidate.artifact] == [candidate]
    return alone or candidate.backend.available()


def _each_once(found: Sequence[Candidate]) -> Sequence[Candidate]:
    """A back end may have several rows that run an artifact in the same way: the first stands for all."""
    kept: list[Candidate] = []
    for one in found:
        same = ((other.artifact, other.precision, other.backend.name, other.device) for other in kept)
        if (one.artifact, one.precision, one.backend.name, one.device) not in same:
            kept.append(one)
    return kept


def _device(row: Backend, device: str) -> str:
    return device if device != "auto" else "cpu" if row.device == "cpu" else f"{row.device}:0"


def _nothing_runs(exported: Exported, wanted: Requested) -> EngineError:
    held, device, backend = exported.artifacts, wanted.device, wanted.backend
    there = ", ".join(f"{artifact.kind} {artifact.precision}" for artifact in held)
    named = exported.named or str(exported.directory)
    elsewhere = [row for row in backends() if row.device != "cpu" and _runnable(row, held)]
    if device == "cpu" and backend is None and wanted.precision is None and elsewhere:
        graphs = [artifact for artifact in exported.manifest.artifacts if artifact.kind == ONNX]
        instead = f", or {graphs[0].encoder.file}" if exported.named and graphs else ""
        return EngineError(f"{named} runs on a GPU alone: give --device cuda:0{instead}")
    by = f"the back end {backend} on {device}" if backend else f"what runs on {device}"
    asked = f" in {wanted.precision}" if wanted.precision else ""
    return EngineError(f"{named} has nothing for {by}{asked}; it has {there or 'no artifacts'}")


def _untrusted(exported: Exported, wanted: Requested) -> GraphRefusedError:
    named, trusted = exported.named or str(exported.directory), "if you trust whoever made it, leave the option out"
    if gpus(wanted.device):
        return GraphRefusedError(f"--untrusted-engine runs graphs on the CPU alone, not on {wanted.device}; {trusted}")
    return GraphRefusedError(f"{named} has no graph for --untrusted-engine, which refuses native code; {trusted}")
