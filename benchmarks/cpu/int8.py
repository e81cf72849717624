"""An int8 graph beside those of an exported directory, as `spai-export --precision int8` makes it; made once."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spai_export import int8
from spai_export.calibration import calibration_views
from spai_export.int8.fitting import VIEWS, fit
from spai_runtime.accuracy_check import AccuracyCheck
from spai_runtime.detector import Detector
from spai_runtime.manifest import DEVICE, FILE_NAME, Accuracy, Artifact, Graph, Manifest

ENCODER = "encoder.int8.onnx"


def quantised(directory: Path, images: Sequence[Path]) -> Path:
    """:param directory: with an artifact in fp32
    :param images: to calibrate on
    :returns: a directory in the temporary directory, with both
    """
    (fp32,) = [one for one in Manifest.load(directory).artifacts if one.precision == "fp32"]
    output = Path(tempfile.gettempdir()) / "spai-benchmarks" / f"{directory.name}-int8-{_digest(fp32)}"
    if not output.is_dir():
        draft = output.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(directory, draft)
        _quantise(draft, fp32, images)
        draft.rename(output)
    return output


def _quantise(directory: Path, fp32: Artifact, images: Sequence[Path]) -> None:
    """In the directory."""
    shutil.copy(directory / fp32.encoder.file, directory / ENCODER)
    views = calibration_views(images, Manifest.load(directory).views, VIEWS)
    with Detector.load(directory, device="cpu", precision="fp32") as reference:
        check = AccuracyCheck(reference, images, "the calibration", "fp32")

        def compare() -> Accuracy:
            _describe(directory, fp32)
            with Detector.load(directory, device="cpu", precision="int8") as detector:
                return check.compare(detector)

        fit(directory / ENCODER, views, compare)
    _describe(directory, fp32)


def _describe(directory: Path, fp32: Artifact) -> None:
    """detector.json names both, the new one as it lies there; that its scores may be far off does not matter here."""
    new = replace(fp32, precision="int8", encoder=Graph.of(directory / ENCODER), target={DEVICE: "cpu"}, options={})
    manifest = replace(Manifest.load(directory), artifacts=(fp32, new))
    (directory / FILE_NAME).write_bytes(manifest.dump())


def _digest(fp32: Artifact) -> str:
    """Of the graph, and of the code that quantises it."""
    (folder,) = int8.__path__
    sources = [path.read_bytes() for path in sorted(Path(folder).glob("*.py"))]
    return hashlib.sha256(b"\0".join((fp32.encoder.sha256.encode(), *sources))).hexdigest()[:12]
