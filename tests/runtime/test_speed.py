"""An int8 graph for CPUs runs where it is not slower than what has more bits; how fast they are is measured once."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from spai_runtime import Detector, speed
from spai_runtime.engines.base import Engine
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Graph, Manifest

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a graph beside fp32 that is said to be int8 for CPUs."""
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spai_runtime.engines.onnx_session.has_int8", lambda: False)  # so that one engine runs int8
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "detector"))
    content = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.int8.onnx").write_bytes(content + b"\x32\x00")  # the same graph, and an empty `domain`
    manifest = Manifest.load(folder)
    (single,) = manifest.artifacts
    int8 = replace(single, precision="int8", encoder=Graph.of(folder / "encoder.int8.onnx"), target={"device": "cpu"})
    (folder / "detector.json").write_bytes(replace(manifest, artifacts=(single, int8)).dump())
    return folder


class Speeds:
    """Views a second that are found, in the order in which they are asked for."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, encoder: Engine, manifest: Manifest) -> float:  # noqa: ARG002
        return self.values.pop(0)


@pytest.mark.parametrize(("int8", "fp32", "runs"), [(3.0, 2.0, "int8"), (2.0, 2.0, "int8"), (1.0, 2.0, "fp32")])
def test_the_faster_of_the_two(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    int8: float,
    fp32: float,
    runs: str,
) -> None:
    caplog.set_level(logging.INFO, "spai_runtime")
    monkeypatch.setattr(speed, "views_per_second", Speeds(int8, fp32))  # a third measurement would be an error
    for _ in range(2):
        with Detector.load(directory, device="cpu") as detector:
            assert detector.precision == runs
    said = "encoder.int8.onnx in" in caplog.text and "takes 1.0 views a second, fewer than 2.0 in fp32" in caplog.text
    assert said is (runs == "fp32")


def test_it_runs_where_it_is_asked_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "views_per_second", Speeds())
    with Detector.load(directory, device="cpu", precision="int8") as detector:
        assert detector.precision == "int8"
    with Detector.load(directory / "encoder.int8.onnx", device="cpu") as detector:
        assert detector.precision == "int8"


def test_without_a_cache_it_is_measured_again(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(speed, "views_per_second", Speeds(1.0, 2.0, 3.0, 2.0))
    for runs in ("fp32", "int8"):
        with Detector.load(directory, device="cpu") as detector:
            assert detector.precision == runs


def test_an_engine_that_fails_is_no_rival(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "views_per_second", Speeds(1.0))
    (directory / "encoder.onnx").unlink()
    with Detector.load(directory, device="cpu") as detector:
        assert detector.precision == "int8"
    with pytest.raises(EngineError, match=r"encoder\.onnx is missing"):
        Detector.load(directory, device="cpu", precision="fp32")


def test_the_measurement_runs_the_encoder(tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    with Detector.load(tiny_detector, device="cpu") as detector:
        shapes, run = [], detector.encoder.run
        monkeypatch.setattr(detector.encoder, "run", lambda batch: (shapes.append(batch.shape), run(batch))[1])
        detector.encoder.streams = 3
        assert speed.views_per_second(detector.encoder, detector.manifest) > 0
    assert shapes == 6 * [(detector.encoder.batch_size, 32, 32, 3)]
