"""What `evaluate` measures: a checkpoint, or exported directories."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_runtime.files.digest import sha256_of
from spai_runtime.manifest import Threshold
from spai_train.commands.edges import extra


@dataclass(frozen=True)
class Subject:
    """A checkpoint, an exported directory, or several of these.

    :param threshold: it replaces the detector's own; with several detectors, it is for fused scores
    """

    ckpt: Path | None
    engines: tuple[Path, ...]
    detector: str | None
    tower: Path | None
    threshold: float | None

    def __post_init__(self) -> None:
        """:raises UserError: neither or both are named, or something is given that does not go with them"""
        if (self.ckpt is None) == (not self.engines):
            raise UserError("name what to evaluate: --ckpt CHECKPOINT, or --engine DIRECTORY that spai-export wrote")
        if self.detector and self.ckpt is None:
            raise UserError("--detector is for --ckpt; what an --engine is, its detector.json says: leave it out")
        if self.tower and self.ckpt is None:
            raise UserError("--tower is for --ckpt; an --engine has its own: leave it out")

    @property
    def several(self) -> bool:
        """Whether several detectors are evaluated."""
        return len(self.engines) > 1

    @property
    def fused_threshold(self) -> Threshold | None:
        """The user's threshold for the fused scores of several detectors, if there is one."""
        return Threshold.given(self.threshold) if self.several and self.threshold is not None else None

    def load(self, device: str) -> Iterator[Detector]:
        """Loads one detector after the other, so that the caller can close the earlier ones when one does not load."""
        if self.ckpt is None:
            for engine in self.engines:
                yield Detector.load(engine, device=device, threshold=None if self.several else self.threshold)
            return
        with extra():
            from spai_train.torch_engine import load_detector  # noqa: PLC0415  an exported detector needs no torch
        yield load_detector(self.ckpt, device, self.threshold, self.detector, self.tower)

    def digests(self, detector: Detector) -> dict[str, str]:
        """The sha256 of the files that the detector was loaded from."""
        if self.ckpt is not None:
            return {self.ckpt.name: sha256_of(self.ckpt)}
        assert detector.artifact is not None, "it was loaded from a directory"
        return {graph.file: graph.sha256 for graph in (detector.artifact.encoder, detector.artifact.head)}
