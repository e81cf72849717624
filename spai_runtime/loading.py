"""From a path and a device to the engines that run: which graphs of a directory, on what."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from spai_runtime.engines import Contract, Engine, load_engine
from spai_runtime.engines.onnx_session import has_cuda
from spai_runtime.errors import EngineError
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Plan

log = logging.getLogger("spai_runtime")


@dataclass(frozen=True)
class Exported:
    """An exported directory.

    :param named: a graph of it that the user named, which then runs and no other
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
        graphs = (
            manifest.encoder,
            manifest.head,
            *((manifest.plan.encoder, manifest.plan.head) if manifest.plan else ()),
        )
        if path.name not in [graph.file for graph in graphs]:
            raise EngineError(f"{path} is not a graph of {directory / FILE_NAME}")
        return cls(directory, manifest, path.name)


@dataclass(frozen=True)
class Engines:
    """What a detector runs on.

    :param graphs: the files behind the two
    """

    encoder: Engine
    head: Engine
    graphs: tuple[Graph, Graph]


@dataclass(frozen=True)
class _Choice:
    """Two graphs and a device that could run them.

    :param plan: where the graphs are TensorRT's
    """

    encoder: Graph
    head: Graph
    device: str
    plan: Plan | None = None

    def load(self, exported: Exported) -> Engines:
        manifest = exported.manifest
        side = manifest.views.size  # type: ignore[union-attr]
        contracts = Contract.encoder(side, manifest.features), Contract.head(manifest.features)
        graphs = self.encoder, self.head
        for graph in graphs:
            _check(exported.directory, graph)
        with ExitStack() as loaded:
            engines = [
                loaded.enter_context(
                    closing(load_engine(exported.directory / graph.file, contract, self.device, self.plan))
                )
                for graph, contract in zip(graphs, contracts, strict=True)
            ]
            loaded.pop_all()
        encoder, head = engines
        return Engines(encoder, head, graphs)


def load_engines(exported: Exported, device: str) -> Engines:
    """:param device: `auto` takes the best that loads: a plan, else CUDA, else the CPU; any other is what runs
    :raises EngineError: nothing loads; the sentence is the last refusal's
    """
    choices = list(_choices(exported, device))
    refusals = []
    for choice in choices[:-1]:
        try:
            engines = choice.load(exported)
        except EngineError as error:
            refusals.append(error)
        else:
            break
    else:
        engines = choices[-1].load(exported)
    for refusal in refusals:
        log.warning("%s; %s runs instead", refusal, engines.encoder.label)
    return engines


def _choices(exported: Exported, device: str) -> Iterator[_Choice]:
    """From the best to the last; one where the user named a graph."""
    manifest, plan = exported.manifest, exported.manifest.plan
    if plan and exported.named in (None, plan.encoder.file, plan.head.file) and device != "cpu":
        yield _Choice(plan.encoder, plan.head, "cuda:0" if device == "auto" else device, plan)
    if exported.named in (None, manifest.encoder.file, manifest.head.file):
        if device == "auto" and _has_cuda():
            yield _Choice(manifest.encoder, manifest.head, "cuda:0")
        yield _Choice(manifest.encoder, manifest.head, "cpu" if device == "auto" else device)
    elif device == "cpu":
        raise EngineError(f"{exported.named} runs on a GPU alone: give --device cuda:0, or {manifest.encoder.file}")


def _has_cuda() -> bool:
    """Whether ONNX Runtime is there and built for CUDA; a plan needs none."""
    try:
        return has_cuda()
    except EngineError:
        return False


def _check(directory: Path, graph: Graph) -> None:
    """The graph must be the very file that was exported; a plan is native code, and is not even looked at before."""
    path = directory / graph.file
    if not path.is_file():
        raise EngineError(f"{graph.file} is missing in {directory}; copy it there or export again")
    if Graph.of(path) != graph:
        raise EngineError(f"{path} is not the file that {FILE_NAME} was written for (sha256 differs); export again")
