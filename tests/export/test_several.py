"""Several precisions in one directory: their files, which of them runs, and that they appear together or not at all."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from spai_export import artifacts, verify
from spai_export.choices import Attention, Int8For, Precision, Settings
from spai_export.cli import main
from spai_export.directory import ExportReport, export
from spai_export.onnx import ExportError
from spai_export.source import Source
from spai_export.verify import Differences
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Manifest, Threshold
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.detectors.spai.model import SPAI
from tests.support.images import pixels
from tests.support.models import TINY, sharpened

NAMES = ["README.md", "detector.json", "encoder.fp32.onnx", "encoder.onnx", "head.onnx"]
SIDE = TINY.tile_size


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "photographs"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(pixels(2 * SIDE, 2 * SIDE, index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def several(tiny_checkpoint: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """fp16 first, and fp32, of which a CPU takes fp32. Do not write into it."""
    settings = Settings((Precision.FP16, Precision.FP32), Attention.PLAIN, images=photographs)
    return export(tiny_checkpoint, tmp_path_factory.mktemp("several") / "m", settings)


@pytest.fixture
def copied(several: ExportReport, tmp_path: Path) -> Path:
    return Path(shutil.copytree(several.directory, tmp_path / "m"))


def logit(directory: Path, encoder: str, path: Path) -> float:
    """Of the four tiles of a photograph, by ONNX Runtime alone."""
    with Image.open(path) as image:
        rows = np.asarray(image)
    views = np.stack([rows[y : y + SIDE, x : x + SIDE] for y in (0, SIDE) for x in (0, SIDE)])
    features = run(directory / encoder, {"views": views})
    return float(run(directory / "head.onnx", {"features": features[None]}).item())


def run(graph: Path, inputs: dict[str, NDArray[np.uint8] | NDArray[np.float32]]) -> NDArray[np.float32]:
    return onnxruntime.InferenceSession(str(graph)).run(None, inputs)[0]  # type: ignore[no-any-return]


def test_the_first_has_the_plain_names_and_all_share_a_head(several: ExportReport) -> None:
    assert sorted(path.name for path in several.directory.iterdir()) == NAMES
    assert sorted(path.name for path in several.files) == NAMES
    manifest = Manifest.load(several.directory)
    assert manifest == several.manifest
    assert [(one.kind, one.precision, *one.files) for one in manifest.artifacts] == [
        ("onnx", "fp16", "encoder.onnx", "head.onnx"),
        ("onnx", "fp32", "encoder.fp32.onnx", "head.onnx"),
    ]
    for artifact in manifest.artifacts:
        for graph in (artifact.encoder, artifact.head):
            assert graph.sha256 == hashlib.sha256((several.directory / graph.file).read_bytes()).hexdigest()
    assert [bool(one.accuracy and one.accuracy.passed) for one in manifest.artifacts] == [True, False]
    tolerated = [one.options["verified"]["tolerance"]["features"] for one in manifest.artifacts]
    assert tolerated == [1e-3, 1e-4]


def test_the_graphs_are_those_of_an_export_alone(several: ExportReport, tiny_detector: Path) -> None:
    alone, beside = (onnx.load(str(path)) for path in (tiny_detector / "encoder.onnx", several.directory / NAMES[2]))
    assert [*alone.graph.node] == [*beside.graph.node]
    assert [*alone.graph.initializer] == [*beside.graph.initializer]


def test_a_cpu_takes_fp32_wherever_it_stands(several: ExportReport, photographs: Path) -> None:
    with Detector.load(several.directory, device="cpu") as detector:
        assert detector.artifact is not None
        assert (detector.artifact.precision, detector.artifact.encoder.file) == ("fp32", "encoder.fp32.onnx")
        found = detector.score(photographs / "0.png").logit
    one, other = (
        logit(several.directory, name, photographs / "0.png") for name in ("encoder.fp32.onnx", "encoder.onnx")
    )
    assert abs(one - other) > 1e-6
    assert found == pytest.approx(one, abs=2e-7)


def test_a_file_that_is_named_runs_and_no_other(copied: Path, photographs: Path) -> None:
    with Detector.load(copied / "encoder.onnx", device="cpu") as detector:
        found = detector.score(photographs / "0.png").logit
    assert found == pytest.approx(logit(copied, "encoder.onnx", photographs / "0.png"), abs=2e-7)
    (copied / "encoder.onnx").unlink()
    Detector.load(copied, device="cpu").close()
    (copied / "encoder.onnx").write_bytes(b"another")
    with pytest.raises(EngineError, match=r"encoder\.onnx is not the file that detector\.json was written for"):
        Detector.load(copied / "encoder.onnx", device="cpu")


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_labels_are_compared_at_the_threshold_of_the_export(
    tiny_checkpoint: Path, tiny_detector: Path, photographs: Path, threshold: float
) -> None:
    """Of the published 0.5, one of the two changes the label of every image."""
    source = Source.load(tiny_checkpoint, Settings(threshold=Threshold(threshold, "a test"), images=photographs))
    with Detector.load(tiny_detector, device="cpu", threshold=threshold) as detector:
        assert source.check_accuracy(detector).labels_changed == 0


def test_one_whose_scores_differ_refuses_them_all(
    tiny_model: SPAI, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = Differences(1e-3, 10.0, 1e-5)  # a logit of thousands has fewer digits
    for name in ("TOLERANCE", "HALF_TOLERANCE"):
        monkeypatch.setattr(verify, name, loose)
    path = tmp_path / "sharp.safetensors"
    save_checkpoint(path, sharpened(tiny_model, photographs / "0.png"), Card(name="sharp"))
    settings = Settings((Precision.FP32, Precision.FP16), Attention.PLAIN, images=photographs)
    with pytest.raises(ExportError, match="is refused: choose another precision, or give --force"):
        export(path, tmp_path / "m", settings)
    assert not (tmp_path / "m").exists()
    forced = export(path, tmp_path / "m", replace(settings, force=True)).manifest
    assert [artifact.passed for artifact in forced.artifacts] == [True, False]


def test_an_export_that_is_interrupted_leaves_what_was_there(
    copied: Path, tiny_checkpoint: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    export_encoder = artifacts.export_encoder

    def interrupted(*arguments: object) -> None:
        export_encoder(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "export_encoder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(tiny_checkpoint, copied, Settings(images=photographs))
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_an_old_name_of_an_option(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--calibrate", str(photographs)]
    assert main([*arguments, "--attention", "plain", "--precision", "fp16", "--precision", "fp32"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "spai-export: --calibrate is now --images\n"
    assert "fp16: |Δscore| from fp32: " in captured.out
    assert " on 3 images of photographs\n" in captured.out
    assert "fp32: largest difference from torch: features " in captured.out
    assert [path.name for path in sorted((tmp_path / "m").iterdir())] == NAMES
    assert main([*arguments, "--images", str(photographs)]) == 2
    assert capsys.readouterr().err == "spai-export: --calibrate is the old name of --images: give --images alone\n"


@pytest.mark.usefixtures("stand_in")
def test_8_bits_beside_fp32(tiny_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    """What quantised it leaves `metadata_props` behind that it knows nothing of."""
    settings = Settings((Precision.FP32, Precision.INT8), images=photographs, force=True, int8_for=Int8For.GPU)
    one, other = export(tiny_checkpoint, tmp_path / "m", settings).manifest.artifacts
    assert "quantised" not in one.options
    assert other.options["quantised"] == {
        "calibration_images": 3,
        "calibration_views": 12,
        "scored_too": True,
        "products": 16,
        "left_in_fp16": 0,
    }
    assert other.accuracy is not None
    described = json.loads(metadata(tmp_path / "m" / "encoder.int8.onnx"))
    assert described["precision"] == "int8"


def metadata(path: Path) -> str:
    properties: dict[str, str] = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return properties["spai"]


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.fp32.onnx", "head.onnx"])
def test_a_lone_graph_says_what_it_is(several: ExportReport, name: str) -> None:
    written = json.loads((several.directory / "detector.json").read_bytes())
    expected = {key: value for key, value in written.items() if key not in ("artifacts", "provenance")}
    expected["precision"] = "fp16" if name == "encoder.onnx" else "fp32"
    assert expected.keys() >= {"name", "detector", "views", "features", "attention", "threshold", "notice"}
    assert expected["detector"] == "spai"
    assert expected["calibration"] is None
    (entry,) = onnx.load(str(several.directory / name)).metadata_props
    assert entry.key == "spai"
    assert json.loads(entry.value) == expected == json.loads(metadata(several.directory / name))
