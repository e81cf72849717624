"""What a new engine costs: two functions and a row. This one is NumPy; CONTRIBUTING.md points here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spai_runtime import Detector
from spai_runtime.engines import BACKENDS, Backend
from spai_runtime.engines.base import Array, Contract, HostEngine
from spai_runtime.errors import EngineError
from spai_runtime.manifest import FILE_NAME, Artifact, Graph, Manifest, Threshold
from spai_runtime.views import Tiles

WIDTH = 4  # D


class NumpyEngine(HostEngine):
    """Mean colours, and what a matrix makes of them; or the mean of an image's features."""

    device, label, batch_size = "cpu", f"NumPy {np.__version__}, cpu", 5

    def __init__(self, weights: Array, *, encodes: bool) -> None:
        self.weights, self.encodes = weights, encodes

    def run(self, batch: Array) -> list[Array]:
        if self.encodes:  # (N, H, W, 3) → (N, D)
            return [(batch.mean(axis=(1, 2)) / 255 @ self.weights).astype(np.float32)]
        logit = batch.mean(axis=1) @ self.weights  # (B, V, D) → (B, 1)
        return [logit.astype(np.float32), np.full(batch.shape[:2], 1 / batch.shape[1], np.float32)]

    def close(self) -> None:
        """It holds nothing."""


def available() -> bool:
    return True


def load(path: Path, contract: Contract, device: str, artifact: Artifact) -> NumpyEngine:
    assert (device, artifact.kind) == ("cpu", "numpy")
    try:
        with np.load(path) as arrays:
            return NumpyEngine(arrays["weights"], encodes=contract.input.name == "views")
    except ValueError as error:
        raise EngineError(f"{path} is not a NumPy archive: export it again") from error


ROW = Backend("numpy", "cpu", ("numpy",), ("fp32",), f"{__name__}:available", f"{__name__}:load")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported directory with one artifact, which NumPy alone runs."""
    monkeypatch.setattr("spai_runtime.engines.BACKENDS", [*BACKENDS, ROW])
    folder = tmp_path / "m"
    folder.mkdir()
    random = np.random.default_rng(0)
    np.savez(folder / "encoder.npz", weights=random.normal(size=(3, WIDTH)))
    np.savez(folder / "head.npz", weights=random.normal(size=(WIDTH, 1)))
    graphs = Graph.of(folder / "encoder.npz"), Graph.of(folder / "head.npz")
    artifact = Artifact("numpy", "fp32", *graphs)
    views, threshold = Tiles(16, 16, 1), Threshold(0.5, "a test")
    manifest = Manifest("colours", "colours", views, WIDTH, threshold, artifacts=(artifact,))
    (folder / FILE_NAME).write_bytes(manifest.dump())
    return folder


@pytest.mark.parametrize("options", [(), ("--backend", "numpy"), ("--device", "cpu")])
def test_it_runs(directory: Path, run: Any, photo: Any, options: tuple[str, ...]) -> None:
    image = photo("a.png", 40, 50)
    ran = run(image, "--engine", directory, "--format", "jsonl", *options)
    assert (ran.code, ran.stderr) == (0, "")
    with Detector.load(directory) as detector, np.load(directory / "encoder.npz") as first:
        assert detector.encoder.label == NumpyEngine.label
        score = detector.score(image)
        tiles = score.layout.stack(_picture(image))
        features = tiles.mean(axis=(1, 2)) / 255 @ first["weights"]
    with np.load(directory / "head.npz") as second:
        assert score.logit == pytest.approx(float((features.mean(axis=0) @ second["weights"])[0]), abs=1e-6)
    assert f'"logit": {score.logit}' in ran.stdout


def test_what_it_cannot_do_is_said(directory: Path, run: Any, photo: Any, tiny_detector: Path) -> None:
    image = photo("a.png", 40, 50)
    ran = run(image, "--engine", tiny_detector, "--backend", "numpy")
    assert (ran.code, "has nothing for the back end numpy" in ran.stderr) == (2, True)
    ran = run(image, "--engine", directory, "--device", "cuda:0")
    assert (ran.code, "has nothing for what runs on cuda:0; it has numpy fp32" in ran.stderr) == (2, True)
    ran = run(image, "--engine", directory, "--backend", "nunpy")
    assert (ran.code, "--backend takes one of tensorrt, tensorrt-rtx, onnxruntime, openvino, numpy" in ran.stderr) == (
        2,
        True,
    )


def test_a_precision_that_it_does_not_run_is_no_candidate(directory: Path, run: Any, photo: Any) -> None:
    manifest = Manifest.load(directory)
    half = replace(manifest.artifacts[0], precision="fp16")
    (directory / FILE_NAME).write_bytes(replace(manifest, artifacts=(half, *manifest.artifacts)).dump())
    assert run(photo("a.png", 40, 50), "--engine", directory).code == 0
    (directory / FILE_NAME).write_bytes(replace(manifest, artifacts=(half,)).dump())
    for device in ("auto", "cpu"):
        ran = run(photo("a.png", 40, 50), "--engine", directory, "--device", device)
        assert (ran.code, f"has nothing for what runs on {device}; it has numpy fp16" in ran.stderr) == (2, True)


def _picture(path: Path) -> Any:
    from spai_runtime.images import Picture  # noqa: PLC0415

    return Picture.open(path).load()
