"""An exported directory → the same with TensorRT engines, held against fp32 on the GPU that they were built on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spai_export.builder import BuildOptions
from spai_export.directory import Exported, Source, write_manifest
from spai_export.gate import Deviation
from spai_export.tensorrt import LAYERS, build
from spai_runtime import loading
from spai_runtime.detector import Detector
from spai_runtime.loading import load_engines
from spai_runtime.manifest import Manifest


@dataclass(frozen=True)
class Planned:
    """What a build has added to a directory.

    :param deviation: of the plans' scores from those of torch in fp32
    :param notes: sentences on the build
    """

    files: Sequence[Path]
    deviation: Deviation
    notes: Sequence[str]
    seconds: float


def add_plan(source: Source, exported: Exported, options: BuildOptions) -> Planned:
    """Builds, scores images with what was built, and only then writes the plans into detector.json.

    :raises ExportError: nothing can be built here, or the scores differ too much from those of fp32
    """
    started = time.perf_counter()
    directory, manifest = exported.directory, exported.manifest
    built = build(directory, manifest.views.size, manifest.features, options)  # type: ignore[union-attr]
    deviation = _deviation(source, directory, replace(manifest, plan=built.plan), options.device)
    plan = replace(built.plan, options={**built.plan.options, "gate": deviation.as_provenance()})
    write_manifest(replace(manifest, plan=plan), directory)
    files = [directory / name for name in (plan.encoder.file, plan.head.file, LAYERS)]
    return Planned([path for path in files if path.exists()], deviation, built.notes, time.perf_counter() - started)


def _deviation(source: Source, directory: Path, manifest: Manifest, device: str) -> Deviation:
    """Of the plans that a manifest names, which no detector.json does yet."""
    assert manifest.plan is not None
    engines = load_engines(loading.Exported(directory, manifest, manifest.plan.encoder.file), device)
    with Detector(manifest, engines.encoder, engines.head, manifest.threshold, engines.graphs) as detector:
        return source.admit(detector)
