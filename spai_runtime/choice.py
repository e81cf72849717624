"""Choosing what runs: each artifact of a directory with a back end and a device, from the best to the last."""

from collections.abc import Sequence
from dataclasses import dataclass

from spai_runtime.engines import Backend, backends
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError, GraphRefusedError
from spai_runtime.exported import Exported
from spai_runtime.manifest import ONNX, Artifact, Precision


@dataclass(frozen=True)
class Requested:
    """The wishes of whoever loads a detector.

    :param device: `auto` (the best that loads), `cpu`, `cuda:<index>`, or `cuda:<index>,<index>`
    :param backend: the only back end that may run; None allows any
    :param precision: the precision in which the encoder computes its large products; None is the fastest one whose
        scores are those of fp32
    :param untrusted: whether the maker of the directory is not trusted: then graphs run within limits, and nothing else
        runs
    """

    device: str = "auto"
    backend: str | None = None
    precision: Precision | None = None
    untrusted: bool = False


@dataclass(frozen=True)
class Candidate:
    """An artifact, with a back end and a device that could run it."""

    artifact: Artifact
    backend: Backend
    device: str

    @property
    def precision(self) -> Precision:
        """The precision in which the encoder's large products are computed, if it has any such products."""
        return self.backend.computes or self.artifact.precision

    @property
    def lowered(self) -> bool:
        """Whether that precision differs from the artifact's."""
        return self.precision != self.artifact.precision


def candidates(exported: Exported, wanted: Requested, *, here: bool = True) -> Sequence[Candidate]:
    """All candidates that could run, from the best to the last, in the order of the table of engines.

    A back end that is not installed is skipped if another one runs the artifact, unless the user named GPUs.

    :param here: whether to skip them; if False, they are among the candidates
    :raises EngineError: there is no candidate
    :raises GraphRefusedError: nothing that the user asked for can be held within limits
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
    """The artifacts that a back end can run, in the order of its precisions."""
    return sorted(filter(row.runs, artifacts), key=lambda artifact: row.precisions.index(artifact.precision))


def _asked_for(candidate: Candidate, exported: Exported, wanted: Requested) -> bool:
    """Whether the user's wishes allow it: a named file runs as it is, and a requested precision excludes all others."""
    if wanted.precision is not None:
        return candidate.precision == wanted.precision
    return exported.named is None or not candidate.lowered


def _worth_trying(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Whether to try it. An artifact's only back end is always tried, so that the user learns what is missing."""
    alone = [one for one in others if one.artifact is candidate.artifact] == [candidate]
    return alone or candidate.backend.available()


def _each_once(found: Sequence[Candidate]) -> Sequence[Candidate]:
    """Drop duplicates: if several rows of a back end run an artifact in the same way, the first stands for all."""
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
