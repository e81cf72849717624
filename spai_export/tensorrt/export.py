"""Adds TensorRT engines to an exported directory, compared with fp32 where there is a GPU that runs them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spai_export.choices import labelled
from spai_export.directory import ExportReport, describe, writing
from spai_export.source import Source
from spai_export.tensorrt.builder import BuildOptions
from spai_export.tensorrt.plans import build
from spai_runtime.accuracy import sentence
from spai_runtime.choice import Requested
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError
from spai_runtime.exported import Exported
from spai_runtime.loading import load_engines
from spai_runtime.manifest import ONNX, TENSORRT_RTX, Accuracy, Artifact, Manifest

UNSCORED = "not scored on a GPU yet"


@dataclass(frozen=True)
class PlanReport:
    """What a build has added to a directory.

    :param artifacts: the artifacts, each with its accuracy
    :param notes: sentences on the build
    """

    files: Sequence[Path]
    artifacts: Sequence[Artifact]
    notes: Sequence[str]
    seconds: float

    @property
    def sentences(self) -> Sequence[str]:
        """What the user is told of the build."""
        alone = len(self.artifacts) == 1
        found = [(plan.precision, self._accuracy(plan)) for plan in self.artifacts]
        *most, last = [line for precision, one in found for line in labelled([one], precision, alone=alone)]
        return [*self.notes, *most, f"{last}; done in {self.seconds:.0f} s"]

    def _accuracy(self, plan: Artifact) -> str:
        named = self.files[0].with_name(plan.encoder.file)
        todo = f"{plan.unscored}: `spai-run --check --engine {named}` does that on one"
        return sentence(plan.accuracy) if plan.accuracy else todo


def add_plans(source: Source, report: ExportReport, options: BuildOptions) -> PlanReport:
    """Builds a plan of every precision, scores images with each if it runs here, and only then lets them appear.

    :raises UserError: nothing can be built here, or the scores differ too much from those of fp32
    """
    started = time.perf_counter()
    directory, manifest = report.directory, report.manifest
    with writing(directory) as folder:
        built = build(directory, manifest, folder, options)
        plans = tuple(_checked(source, folder, manifest, artifact, options.device) for artifact in built.artifacts)
        names = [name for plan in plans for name in plan.files] + sorted(path.name for path in folder.iterdir())
        describe(replace(manifest, artifacts=(*manifest.artifacts, *plans)), folder, directory)
    files = [directory / name for name in dict.fromkeys(names)]
    return PlanReport(files, plans, built.notes, time.perf_counter() - started)


def _checked(source: Source, folder: Path, manifest: Manifest, artifact: Artifact, device: str) -> Artifact:
    """Scores plans that no detector.json names yet, and gives them with their accuracy.

    Plans of TensorRT for RTX are built where they may not run, and then wait to be scored; those of TensorRT must run.
    """
    exported = Exported(folder, replace(manifest, artifacts=(artifact,)), artifact.encoder.file)
    try:
        engines = load_engines(exported, Requested(device))
    except EngineError:
        if artifact.kind != TENSORRT_RTX:
            raise
        return replace(artifact, accuracy=_of_graphs(manifest, artifact), unscored=UNSCORED)
    with Detector(manifest, engines.encoder, engines.head, manifest.threshold, artifact) as detector:
        return replace(artifact, accuracy=source.check_accuracy(detector))


def _of_graphs(manifest: Manifest, plan: Artifact) -> Accuracy | None:
    """The accuracy of a plan's graphs where they failed; else None, since nothing is known of the plan yet."""
    graphs = next(one for one in manifest.artifacts if one.kind == ONNX and one.precision == plan.precision)
    return None if graphs.passed else graphs.accuracy
