"""Graphs of detectors that are not SPAI: views that are no squares, whole images, heads without attention."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from spai_export.onnx import ExportError, check_graph, export_encoder, export_head
from spai_export.tensorrt import lint
from spai_export.verify import TOLERANCE, verify
from spai_runtime.detector import Detector
from spai_runtime.engines.base import Contract
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.manifest import Manifest, Threshold
from spai_runtime.views import CentreCrop, Resize, WholeImage
from tests.support.images import pixels

D = 6


class Encoder(nn.Module):
    """Two convolutions and a pooling layer, which torch traces otherwise where channels come last in memory."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, D, 3, 2, padding=1)
        self.layers = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, H, W, 3) uint8"""
        return self.layers(views.float().permute(0, 3, 1, 2) / 255)  # type: ignore[no-any-return]


class Head(nn.Module):
    """The mean of what a line says of each view."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(D, 1)

    def forward(self, features: Tensor) -> Tensor:
        """:param features: (B, V, D)"""
        return self.line(features).mean(dim=1)  # type: ignore[no-any-return]


WHOLE = Manifest("whole", "other", WholeImage(), D, Threshold(0.5, "a test"), attention=False)


@pytest.fixture(scope="module")
def modules() -> tuple[Encoder, Head]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder().eval(), Head().eval()


@pytest.fixture(scope="module")
def graphs(modules: tuple[Encoder, Head], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    export_encoder(modules[0], (None, None), folder / "encoder.onnx")
    export_head(modules[1], D, folder / "head.onnx", attention=False)
    return folder / "encoder.onnx", folder / "head.onnx"


def axes(path: Path) -> dict[str, list[str | int]]:
    graph = onnx.load(str(path)).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_the_contract_of_whole_images_and_of_a_head_without_attention(graphs: tuple[Path, Path]) -> None:
    assert axes(graphs[0]) == {"views": ["views", "height", "width", 3], "features": ["views", D]}
    assert axes(graphs[1]) == {"features": ["images", "views", D], "logit": ["images", 1]}
    for path in graphs:
        check_graph(path)
        assert lint.check(path) == []


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 97, 65), (1, 1, 1), (2, 1, 40), (1, 233, 31)])
def test_any_height_and_width(
    modules: tuple[Encoder, Head], graphs: tuple[Path, Path], shape: tuple[int, int, int]
) -> None:
    views = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = onnxruntime.InferenceSession(str(graphs[0])).run(None, {"views": views})
    with torch.inference_mode():
        expected = modules[0](torch.from_numpy(views))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_they_are_verified(modules: tuple[Encoder, Head], graphs: tuple[Path, Path]) -> None:
    found = verify(WHOLE, *modules, graphs)
    assert found.differences.attention is None
    assert 0 <= found.differences.features <= TOLERANCE.features
    assert found.record()["largest_difference"].keys() == found.record()["tolerance"].keys() == {"features", "logit"}
    assert "attention" not in str(found)


@pytest.mark.parametrize("which", ["encoder", "head"])
def test_other_weights_are_found(modules: tuple[Encoder, Head], graphs: tuple[Path, Path], which: str) -> None:
    torch.manual_seed(1)
    other = (Encoder(), modules[1]) if which == "encoder" else (modules[0], Head())
    with pytest.raises(ExportError, match="differ from the checkpoint: features"):
        verify(WHOLE, *other, graphs)


def test_a_detector_of_whole_images(modules: tuple[Encoder, Head], graphs: tuple[Path, Path], tmp_path: Path) -> None:
    contracts = Contract.encoder((None, None), D), Contract.head(D, attention=False)
    engines = (OnnxEngine(path, contract) for path, contract in zip(graphs, contracts, strict=True))
    with Detector(WHOLE, *engines, WHOLE.threshold) as detector:
        for height, width in ((50, 41), (7, 200)):
            Image.fromarray(pixels(height, width)).save(tmp_path / "a.png")
            score = detector.score(tmp_path / "a.png")
            with torch.inference_mode():
                expected = modules[1](modules[0](torch.from_numpy(pixels(height, width))[None])[None]).item()
            assert score.logit == pytest.approx(expected, abs=1e-5)
            assert (score.attention, len(score.layout)) == (None, 1)


def test_views_that_are_no_squares(modules: tuple[Encoder, Head], tmp_path: Path) -> None:
    export_encoder(modules[0], (40, 56), tmp_path / "encoder.onnx")
    assert axes(tmp_path / "encoder.onnx") == {"views": ["views", 40, 56, 3], "features": ["views", D]}


def test_views_of_one_side_after_a_resize(
    modules: tuple[Encoder, Head], graphs: tuple[Path, Path], tmp_path: Path
) -> None:
    """What is traced is the view, whatever the image was resized to."""
    policy = CentreCrop(32, Resize(48))
    export_encoder(modules[0], policy.shape, tmp_path / "encoder.onnx")
    manifest = Manifest("crop", "other", policy, D, WHOLE.threshold, attention=False)
    assert axes(tmp_path / "encoder.onnx")["views"] == ["views", 32, 32, 3]
    assert verify(manifest, *modules, (tmp_path / "encoder.onnx", graphs[1])).differences.features <= 1e-4


class AsksForShapes(nn.Module):
    """As code does that was not written for TensorRT."""

    def forward(self, views: Tensor) -> Tensor:
        return views.float().reshape(views.shape[0], views.shape[1] * views.shape[2], 3).mean(dim=1)


def test_nobody_asks_for_the_shape_of_uint8(tmp_path: Path) -> None:
    """The cast has the same one, and is what TensorRT takes uint8 into."""
    export_encoder(AsksForShapes(), (None, None), tmp_path / "encoder.onnx")
    nodes = onnx.load(tmp_path / "encoder.onnx").graph.node
    assert "Shape" in {node.op_type for node in nodes}
    assert {node.op_type for node in nodes if "views" in node.input} == {"Cast"}
    engine = OnnxEngine(tmp_path / "encoder.onnx", Contract.encoder((None, None), 3))
    views = np.random.default_rng(0).integers(0, 256, (3, 5, 9, 3), np.uint8)
    np.testing.assert_allclose(engine.run(views)[0], views.mean(axis=(1, 2)), rtol=1e-6)
