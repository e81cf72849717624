"""spai-run --check finds out whether what runs here gives the scores of the detector's ONNX graphs."""

from collections.abc import Sequence
from pathlib import Path

from spai_runtime import checks
from spai_runtime.accuracy import examples, sentence
from spai_runtime.accuracy_check import AccuracyCheck
from spai_runtime.cli.commands import EXIT_SOME_ERRORS, show
from spai_runtime.cli.options import Options
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError
from spai_runtime.files.sources import Sources
from spai_runtime.manifest import ONNX, Accuracy, Artifact


def check(options: Options) -> int:
    """Compare every --engine with the ONNX graphs beside it on the CPU; say how far scores differ, and keep this for
    later runs.

    :returns: 0, or EXIT_SOME_ERRORS if the scores of an engine are too far away
    :raises UserError: something cannot be loaded, or no image can be scored
    """
    paths = [item.path for item in Sources(options.inputs or [str(examples())], options.split)]
    source, passed = "the INPUT" if options.inputs else "the examples", True
    for path in options.engines:
        with Detector.load(
            path, device=options.device, backend=options.backend, precision=options.precision
        ) as detector:
            accuracy = _compared(path, detector, paths, source)
            assert detector.artifact is not None, "it was loaded from a directory"
            checks.keep(detector.artifact, detector.encoder.label, accuracy)
            show(f"{path}: {detector.precision} in {detector.encoder.label}: {verdict(accuracy)}")
        passed &= accuracy.passed
    return 0 if passed else EXIT_SOME_ERRORS


def remark(detector: Detector, path: Path) -> str:
    """What a user must know of a plan that the export could not score; "" if it was checked, or is no plan.

    :param path: where the detector was loaded from
    """
    artifact = detector.artifact
    if artifact is None or not artifact.unscored:
        return ""
    found = checks.found(artifact, detector.encoder.label)
    if found is None:
        return f"{artifact.encoder.file} was {artifact.unscored}: `spai-run --check --engine {path}` does that, once"
    return "" if found.passed else f"{artifact.encoder.file} gives other scores than its graph here: {verdict(found)}"


def verdict(accuracy: Accuracy) -> str:
    """One sentence that says how far the scores are apart, and whether that is near enough."""
    said = "which is within" if accuracy.passed else "which is NOT within"
    return f"{sentence(accuracy, accuracy.against)}; {said} {accuracy.limit:g}"


def _compared(path: Path, detector: Detector, paths: Sequence[Path], source: str) -> Accuracy:
    graph = _graphs(path, detector).encoder.file
    with Detector.load((path if path.is_dir() else path.parent) / graph, device="cpu") as reference:
        against = f"{graph} in {reference.encoder.label}"
        return AccuracyCheck(reference, paths, source, against).compare(detector)


def _graphs(path: Path, detector: Detector) -> Artifact:
    """The graphs in fp32, or else those of the precision that is checked. :raises EngineError: there are none"""
    assert detector.artifact is not None
    for precision in ("fp32", detector.artifact.precision):
        for artifact in detector.manifest.artifacts:
            if (artifact.kind, artifact.precision) == (ONNX, precision):
                return artifact
    raise EngineError(f"{path} has no ONNX graphs that its scores could be compared with: export it again")
