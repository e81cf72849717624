"""Exported directories, and which of their files may run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from spai_runtime.errors import EngineError, GraphRefusedError
from spai_runtime.manifest import FILE_NAME, Artifact, Graph, Manifest


@dataclass(frozen=True)
class Exported:
    """An exported directory.

    :param named: the name of the file in it that the user gave; then no other one runs
    """

    directory: Path
    manifest: Manifest
    named: str | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a directory.

        :param path: the directory or a graph in it
        :raises UserError: the path is neither, or its detector.json cannot be used
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
        """The artifacts that may run: those of the named file, or else those with the scores of fp32, or else all."""
        if self.named is not None:
            return self.manifest.artifacts_of(self.named)
        artifacts = self.manifest.artifacts
        return [artifact for artifact in artifacts if artifact.passed] or artifacts

    def check(self, graph: Graph) -> Path:
        """Check that a graph is the file that was exported. A plan is native code, so nothing reads it before.

        :returns: the path of the file
        :raises EngineError: it is missing, or cannot be read
        :raises GraphRefusedError: it is another file than the exported one
        """
        path = self.directory / graph.file
        try:
            found = Graph.of(path) if path.is_file() else None
        except OSError as error:
            raise EngineError(f"cannot read {path}: {error.strerror}") from error
        if found is None:
            raise EngineError(f"{graph.file} is missing in {self.directory}; copy it there or export again")
        if found != graph:
            raise GraphRefusedError(
                f"{path} is not the file that {FILE_NAME} was written for (sha256 differs); export again"
            )
        return path
