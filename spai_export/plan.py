"""An exported directory → the same with TensorRT engines, held against fp32 on the GPU that they were built on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spai_export.builder import BuildOptions
from spai_export.directory import Exported, Source, write_manifest
from spai_export.gate import Deviation
from spai_export.tensorrt import LAYERS, build
from spai_runtime.detector import Detector


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
    built = build(directory, manifest.views.size, manifest.features, options)
    candidate = replace(manifest, plan=built.plan)
    write_manifest(candidate, directory)
    try:
        with Detector.load(directory / built.plan.encoder.file, device=options.device) as detector:
            deviation = source.admit(detector)
    except BaseException:
        write_manifest(manifest, directory)
        raise
    gate = {**built.plan.options, "gate": deviation.as_provenance()}
    write_manifest(replace(candidate, plan=replace(built.plan, options=gate)), directory)
    files = [directory / name for name in (built.plan.encoder.file, built.plan.head.file, LAYERS)]
    return Planned([path for path in files if path.exists()], deviation, built.notes, time.perf_counter() - started)
