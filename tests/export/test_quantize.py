"""8-bit encoders: which products are quantised, calibration, and what is asked of ModelOpt and mended behind it.

Tests that need ModelOpt itself skip without it; the others put a stand-in in its place that makes its mistakes.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image

from spai_export.calibration import calibration_views
from spai_export.choices import Precision
from spai_export.modelopt import QuantisationError
from spai_export.onnx import export_encoder
from spai_export.precision import cast
from spai_export.quantize import excluded_nodes, quantize
from spai_export.verify import sample_views
from spai_runtime.images import Picture
from spai_runtime.views import CentreCrop, Resize, Tiles, WholeImage
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.support.images import Write, write_bad_images
from tests.support.models import TINY

POLICY = Tiles(size=32, stride=32, minimum=4)
SMALL = replace(TINY, width=32, projection=16)  # the least that ModelOpt quantises: a head and a projection of 16


def export(config: SPAIConfig, folder: Path, *, half: bool) -> Path:
    path = folder / ("half.onnx" if half else "single.onnx")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SPAI(config).eval().encoder
        for parameter in encoder.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)  # the exporter makes one constant of equal ones
    export_encoder(cast(SPEC, encoder, Precision.FP16) if half else encoder, (32, 32), path)
    return path


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(SMALL, tmp_path_factory.mktemp("single"), half=False)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(SMALL, tmp_path_factory.mktemp("half"), half=True)


def run(path: Path, views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """With no optimisation: ONNX Runtime's move Q/DQ of fp8 to where it cannot run them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"views": views})[0]  # type: ignore[no-any-return]


def owner(graph: onnx.GraphProto, product: onnx.NodeProto) -> str:
    """The module that a product belongs to, by the name of its bias or of its constant factor; "" for attention's."""
    following = [node for node in graph.node if product.output[0] in node.input and node.op_type == "Add"]
    constants = {tensor.name for tensor in graph.initializer}
    names = [name for node in (product, *following) for name in node.input if name in constants and "." in name]
    return names[0] if names else ""


# which products


@pytest.mark.parametrize("kind", ["single", "half", "clip"])
def test_excluded_is_what_is_not_blocks_or_projectors(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    clip = kind == "clip"
    path = export(replace(SMALL, backbone="clip"), tmp_path, half=True) if clip else request.getfixturevalue(kind)
    model = onnx.load(str(path))
    excluded = set(excluded_nodes(model))
    owners = {
        node.name: owner(model.graph, node) for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")
    }
    inside = {name for name, of in owners.items() if of.startswith(("backbone.blocks.", "projectors.")) or not of}
    assert excluded == owners.keys() - inside
    assert len(inside) == (14 if clip else 16)  # CLIP reads the last block before its MLP, which never runs
    assert sorted(owners[name].split(".")[0] for name in excluded) == ["backbone"] + ["context"] * 4 + ["filter"] * 4


# calibration views


def paint(photo: Write, sizes: Sequence[tuple[int, int]]) -> list[Path]:
    return [photo(f"{index}.png", *size, seed=index) for index, size in enumerate(sizes)]


def origins(views: NDArray[np.uint8], paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Image and index of each view, found by its pixels among all views of every image."""
    pictures = [Picture.open(path) for path in paths]
    stacks = [POLICY.layout(picture.height, picture.width).stack(picture) for picture in pictures]
    known = {view.tobytes(): (image, index) for image, stack in enumerate(stacks) for index, view in enumerate(stack)}
    return [known[view.tobytes()] for view in views]


def test_views_are_those_of_the_layout_and_none_twice(photo: Write) -> None:
    paths = paint(photo, [(64, 96), (40, 50), (33, 70), (128, 64)])
    views = calibration_views(paths, POLICY, count=16)
    assert (views.shape, views.dtype) == ((16, 32, 32, 3), np.uint8)
    found = origins(views, paths)
    assert len(set(found)) == 16
    counts = np.bincount([image for image, _ in found], minlength=4)
    assert counts.tolist() == [4, 4, 4, 4]


def test_views_of_an_image_that_is_resized(photo: Write) -> None:
    (path,) = paint(photo, [(50, 81)])
    resized = Image.open(path).resize((51, 32), Image.Resampling.BICUBIC)
    (view,) = calibration_views([path], CentreCrop(32, Resize(32)), count=1)
    np.testing.assert_array_equal(view, np.asarray(resized)[:, 10:42])


def test_an_image_of_few_views_leaves_the_rest_to_others(photo: Write) -> None:
    paths = paint(photo, [(64, 64), (160, 160)])  # 4 and 25 views
    assert np.bincount([image for image, _ in origins(calibration_views(paths, POLICY, 20), paths)]).tolist() == [4, 16]
    assert len(calibration_views(paths, POLICY, 512)) == 29


def test_more_images_than_views_gives_one_of_each_of_a_sample(photo: Write) -> None:
    paths = paint(photo, [(64, 64)] * 9)
    images = [image for image, _ in origins(calibration_views(paths, POLICY, 5), paths)]
    assert len(set(images)) == 5
    assert set(images) != set(range(5))  # not merely the first


def test_the_seed_decides(photo: Write) -> None:
    paths = paint(photo, [(96, 96)] * 3)
    one, again, other = (calibration_views(paths, POLICY, 6, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_images_that_cannot_be_read_are_left_out(photo: Write, tmp_path: Path) -> None:
    bad = [tmp_path / name for name in write_bad_images(tmp_path) if name != "unreadable.jpg"]
    good = paint(photo, [(64, 64)])
    np.testing.assert_array_equal(
        np.sort(calibration_views([*bad, *good], POLICY), axis=0), np.sort(calibration_views(good, POLICY), axis=0)
    )
    for paths in (bad, []):
        with pytest.raises(QuantisationError, match=f"calibration needs images, and none of {len(paths)} can be read"):
            calibration_views(paths, POLICY)


def test_whole_images_are_refused(photo: Write) -> None:
    with pytest.raises(QuantisationError, match="views of one size, and these are whole images: choose fp32"):
        calibration_views([photo("a.png", 40, 50)], WholeImage())


# what is asked of ModelOpt, and mended


@pytest.mark.usefixtures("stand_in")
def test_the_graph_is_mended_and_nothing_leaks(
    half: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in excludes by prefix, scales softmax in float32 and weights by 1, prints, and leaves files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = {path.name: path.read_bytes() for path in half.parent.iterdir()}
    (tmp_path / "out").mkdir()
    done = quantize(half, Precision.INT8, sample_views(4, 32, 32), tmp_path / "out" / "int8.onnx")
    assert (len(done.products), done.left) == (16, ())
    assert capfd.readouterr() == ("", "")
    assert {path.name: path.read_bytes() for path in half.parent.iterdir()} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["int8.onnx"]
    assert not list((tmp_path / "temporary").iterdir())
    model = onnx.load(str(tmp_path / "out" / "int8.onnx"))
    assert {node.name for node in onnx.load(str(half)).graph.node} <= {node.name for node in model.graph.node}
    assert np.isfinite(run(tmp_path / "out" / "int8.onnx", sample_views(3, 32, 32))).all()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("precision", "steps"), [(Precision.INT8, 127), (Precision.FP8, 36)])
def test_scales_of_weights_are_of_the_largest_value(
    half: Path, tmp_path: Path, precision: Precision, steps: int
) -> None:
    quantize(half, precision, sample_views(2, 32, 32), tmp_path / "out.onnx")
    graph = onnx.load(str(tmp_path / "out.onnx")).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[node.input[1]].dtype for node in quantizers} == {np.dtype(np.float16)}
    weights = [node for node in quantizers if node.input[0] in constants]
    assert len(weights) == 12
    for node in weights:
        expected = np.abs(constants[node.input[0]].astype(float)).max() / steps
        assert constants[node.input[1]] == pytest.approx(expected, rel=0.01)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("raises", "ModelOpt could not quantise the encoder: ValueError: no such thing"),
        ("lacks", "ModelOpt is not whole, No module named 'onnx_graphsurgery': pip install '.[quantize]'"),
        ("killed", "ModelOpt was ended by SIGKILL: it may want more memory than there is; calibrate on fewer views"),
        ("writes nothing", "ModelOpt could not quantise the encoder: noise"),
        ("finds nothing", "ModelOpt found nothing to quantise in the encoder"),
        ("excludes nothing", "ModelOpt quantised node_matmul, which it was told not to"),
    ],
)
def test_failures_are_one_sentence_and_write_nothing(
    failure: str, message: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODELOPT", failure)
    with pytest.raises(QuantisationError) as raised:
        quantize(half, Precision.INT8, sample_views(2, 32, 32), tmp_path / "out.onnx")
    assert str(raised.value) == message
    assert not (tmp_path / "out.onnx").exists()


def test_modelopt_is_missing(half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(QuantisationError, match=r"^ModelOpt is not installed: pip install '\.\[quantize\]'$"):
        quantize(half, Precision.INT8, sample_views(2, 32, 32), tmp_path / "out.onnx")


# ModelOpt itself


@pytest.mark.parametrize(
    ("precision", "element", "products", "tolerance"),
    [(Precision.INT8, TensorProto.INT8, 12, 0.1), (Precision.FP8, TensorProto.FLOAT8E4M3FN, 16, 0.3)],
)
def test_modelopt_quantises(
    precision: Precision, element: int, products: int, tolerance: float, single: Path, half: Path, tmp_path: Path
) -> None:
    pytest.importorskip("modelopt.onnx", reason="ModelOpt is not installed")
    path, views = tmp_path / "out.onnx", sample_views(12, 32, 32)
    done = quantize(half, precision, views, path)
    assert (len(done.products), len(done.left)) == (products, 16 - products)
    graph = onnx.load(str(path)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == 2 * products
    for node in quantizers:
        assert constants[node.input[1]].data_type == TensorProto.FLOAT16
        assert constants[node.input[2]].data_type == element
        assert not numpy_helper.to_array(constants[node.input[2]]).astype(float).any()
    assert {node.domain for node in graph.node} == {""}
    for count in (1, 3, 5):
        np.testing.assert_allclose(run(path, views[:count]), run(single, views[:count]), atol=tolerance, rtol=0)
    assert np.abs(run(path, views) - run(single, views)).max() > 1e-4  # quantised it is
