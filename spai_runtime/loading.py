"""From a path, a device and a back end to the engines that run: which artifact of a directory, on what."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from spai_runtime import checks
from spai_runtime.engines import Backend, backends
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError, GraphRefusedError
from spai_runtime.manifest import FILE_NAME, Artifact, Graph, Manifest

log = logging.getLogger("spai_runtime")


@dataclass(frozen=True)
class Exported:
    """An exported directory.

    :param named: a file of it that the user named, which then runs and no other
    """

    directory: Path
    manifest: Manifest
    named: str | None = None

    @classmethod
    def open(cls, path: Path) -> "Exported":
        """:param path: the directory or a graph in it
        :raises UserError: it is none, or its detector.json cannot be used
        """
        if not path.exists():
            raise EngineError(f"there is no {path}; `spai-export --ckpt CHECKPOINT --output {path}` would make it")
        directory = path if path.is_dir() else path.parent
        if not (directory / FILE_NAME).is_file():
            raise EngineError(
                f"there is no {FILE_NAME} in {directory}; give --engine a directory that spai-export wrote"
            )
        manifest = Manifest.load(directory)
        if path == directory:
            return cls(directory, manifest)
        if not manifest.artifacts_of(path.name):
            raise EngineError(f"{path} is not a graph of {directory / FILE_NAME}")
        return cls(directory, manifest, path.name)

    @property
    def artifacts(self) -> Sequence[Artifact]:
        """Those that may run: of the file that was named, else all whose scores are those of fp32, if there are any."""
        if self.named is not None:
            return self.manifest.artifacts_of(self.named)
        artifacts = self.manifest.artifacts
        return [artifact for artifact in artifacts if artifact.passed] or artifacts


@dataclass(frozen=True)
class Engines:
    """What a detector runs on.

    :param artifact: that the two were loaded from
    """

    encoder: Engine
    head: Engine
    artifact: Artifact


@dataclass(frozen=True)
class _Candidate:
    """An artifact, and a back end and a device that could run it."""

    artifact: Artifact
    backend: Backend
    device: str

    def start(self, exported: Exported) -> Engines:
        """:raises EngineError: a file is missing or another one, or the back end refuses it"""
        manifest, artifact = exported.manifest, self.artifact
        contracts = (
            Contract.encoder(manifest.views.shape, manifest.features),
            Contract.head(manifest.features, attention=manifest.attention),
        )
        graphs = artifact.encoder, artifact.head
        for graph in graphs:
            _check(exported.directory, graph)
        with ExitStack() as loaded:
            encoder, head = (
                loaded.enter_context(
                    closing(self.backend.open(exported.directory / graph.file, contract, self.device, artifact))
                )
                for graph, contract in zip(graphs, contracts, strict=True)
            )
            loaded.pop_all()
        return Engines(encoder, head, artifact)


def load_engines(exported: Exported, device: str, backend: str | None = None, *, untrusted: bool = False) -> Engines:
    """:param device: `auto` takes the best that loads, in the order of the table of engines; any other is what runs
    :param backend: that runs, and no other; None is any
    :param untrusted: whoever made the directory is not trusted: graphs run within limits, and nothing else does
    :raises EngineError: nothing loads; the sentence, and whether it is a GraphRefusedError, is of the last one tried
    :raises GraphRefusedError: nothing that was asked for can be held within limits
    """
    candidates = _candidates(exported, device, backend, untrusted=untrusted)
    refusals = []
    for candidate in candidates[:-1]:
        try:
            engines = candidate.start(exported)
            _refuse_failed(engines)
        except EngineError as error:
            refusals.append(error)
        else:
            break
    else:
        engines = candidates[-1].start(exported)
    for refusal in refusals:
        log.warning("%s; %s runs instead", refusal, engines.encoder.label)
    return engines


def _refuse_failed(engines: Engines) -> None:
    """:raises EngineError: their scores were found to be others than those of fp32 here; they are closed then"""
    accuracy = checks.found(engines.artifact, engines.encoder.label)
    if accuracy is not None and not accuracy.passed:
        engines.encoder.close()
        engines.head.close()
        file = engines.artifact.encoder.file
        raise EngineError(f"{file} gives other scores than its graph here, as `spai-run --check` found")


def _candidates(exported: Exported, device: str, backend: str | None, *, untrusted: bool) -> Sequence[_Candidate]:
    """From the best to the last.

    :raises EngineError: there is none
    """
    wanted = None if device == "auto" else "cuda" if gpus(device) else "cpu"
    rows = [row for row in backends(backend, untrusted=untrusted) if wanted in (None, row.device)]
    pairs = [(row, artifact) for row in rows for artifact in _runnable(row, exported.artifacts)]
    if device == "auto":
        pairs = [pair for pair in pairs if pair == pairs[-1] or _worth_trying(*pair, pairs)]
    if not pairs:
        raise _untrusted(exported, device) if untrusted else _nothing_runs(exported, device, backend)
    return [_Candidate(artifact, row, _device(row, device)) for row, artifact in pairs]


def _runnable(row: Backend, artifacts: Sequence[Artifact]) -> Sequence[Artifact]:
    """What a back end runs of some artifacts, in its order of precisions."""
    fitting = [one for one in artifacts if one.kind in row.kinds and one.precision in row.precisions]
    return sorted(fitting, key=lambda artifact: row.precisions.index(artifact.precision))


def _worth_trying(row: Backend, artifact: Artifact, pairs: Sequence[tuple[Backend, Artifact]]) -> bool:
    """A back end that is not here is passed over, unless nothing else runs the artifact: then the user is told why."""
    alone = [other for other, same in pairs if same is artifact] == [row]
    return alone or row.available()


def _device(row: Backend, device: str) -> str:
    return device if device != "auto" else "cpu" if row.device == "cpu" else f"{row.device}:0"


def _nothing_runs(exported: Exported, device: str, backend: str | None) -> EngineError:
    held = exported.artifacts
    there = ", ".join(f"{artifact.kind} {artifact.precision}" for artifact in held)
    named = exported.named or str(exported.directory)
    if device == "cpu" and backend is None and any(_runnable(row, held) for row in backends()):
        graphs = [artifact for artifact in exported.manifest.artifacts if artifact.kind == "onnx"]
        instead = f", or {graphs[0].encoder.file}" if exported.named and graphs else ""
        return EngineError(f"{named} runs on a GPU alone: give --device cuda:0{instead}")
    by = f"the back end {backend} on {device}" if backend else f"what runs on {device}"
    return EngineError(f"{named} has nothing for {by}; it has {there or 'no artifacts'}")


def _untrusted(exported: Exported, device: str) -> GraphRefusedError:
    named, trusted = exported.named or str(exported.directory), "if you trust whoever made it, leave the option out"
    if gpus(device):
        return GraphRefusedError(f"--untrusted-engine runs graphs on the CPU alone, not on {device}; {trusted}")
    return GraphRefusedError(f"{named} has no graph for --untrusted-engine, which refuses native code; {trusted}")


def _check(directory: Path, graph: Graph) -> None:
    """The graph must be the very file that was exported; a plan is native code, and is not even looked at before."""
    path = directory / graph.file
    try:
        found = Graph.of(path) if path.is_file() else None
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    if found is None:
        raise EngineError(f"{graph.file} is missing in {directory}; copy it there or export again")
    if found != graph:
        raise GraphRefusedError(
            f"{path} is not the file that {FILE_NAME} was written for (sha256 differs); export again"
        )
