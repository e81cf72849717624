"""int8 for CPUs: which layers, in what form, what rescaling channels changes, and how layers are chosen."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image

from spai_export import directory
from spai_export.calibration import calibration_views
from spai_export.choices import Int8For, Precision, Settings
from spai_export.cli import main
from spai_export.int8.fitting import Examined, examine, fit
from spai_export.int8.migration import migrate
from spai_export.int8.products import constant, products
from spai_export.int8.qdq import with_qdq
from spai_export.int8.recording import record
from spai_export.int8.rounding import Range
from spai_export.int8.sensitivity import errors_alone, spoilers
from spai_export.modelopt import QuantisationError
from spai_export.onnx import ExportError, export_encoder
from spai_export.verify import sample_views
from spai_runtime.accuracy import LIMIT, examples
from spai_runtime.accuracy_check import AccuracyCheck
from spai_runtime.detector import Detector
from spai_runtime.engines import BACKENDS
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.manifest import Accuracy, Artifact, Graph, Manifest, Spread
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.models.vit import BackboneName
from tests.golden import IMAGES
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.models import CONFIGS, TINY
from tests.support.small_graphs import write_encoder

DEMO = Path(__file__).parents[2] / "weights" / "demo"
WIDE = replace(TINY, width=32, projection=16)
VIEWS = sample_views(4, 32, 32)
EXAMPLES = "real_1.png", "generated_1.png"


def export(config: SPAIConfig, path: Path, change: Callable[[SPAI], None] = lambda _: None) -> onnx.ModelProto:
    """An encoder whose weights, scales and biases all differ, so that the exporter makes no two one constant."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SPAI(config).eval()
        for parameter in model.encoder.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    change(model)
    export_encoder(model.encoder, (config.tile_size, config.tile_size), path)
    return onnx.load(str(path))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return export(WIDE, tmp_path_factory.mktemp("single") / "encoder.onnx")


@pytest.fixture(scope="module")
def examined(single: onnx.ModelProto) -> Examined:
    return examine(single, VIEWS)


@pytest.fixture(scope="module")
def quantised(examined: Examined, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "encoder.int8.onnx"
    examined.write(path, 0)
    return path


def run(model: onnx.ModelProto, views: NDArray[np.uint8] = VIEWS) -> NDArray[np.float32]:
    """As the graph says it: ONNX Runtime fuses nothing, so that it computes Q/DQ in fp32."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"views": views})[0]  # type: ignore[no-any-return]


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# which layers


def readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def leads_to(model: onnx.ModelProto, start: onnx.NodeProto, end: Callable[[onnx.NodeProto], bool]) -> bool:
    """Whether a node that is wanted depends on this one: a walk along the edges, one at a time."""
    following, waiting, seen = readers(model), list(start.output), set[str]()
    while waiting:
        for reader in following.get(waiting.pop(), []):
            if end(reader):
                return True
            waiting += [output for output in reader.output if output not in seen]
            seen.update(reader.output)
    return False


@pytest.mark.parametrize("family", ["mfm", "dinov2_vitg14"])
def test_the_linear_layers_of_blocks_and_projectors_and_no_others(
    family: BackboneName, single: onnx.ModelProto, tmp_path: Path
) -> None:
    config = WIDE if family == "mfm" else CONFIGS[family]
    model = single if family == "mfm" else export(config, tmp_path / "encoder.onnx")
    found = products(model)
    chosen = {product.node for product in found}
    for node in model.graph.node:
        if node.name in chosen:
            assert not leads_to(model, node, lambda reader: reader.op_type == "Conv")
        if node.op_type.startswith("Reduce"):
            assert not leads_to(model, node, lambda reader: reader.name in chosen)
    linear = [name for name, part in SPAI(config).encoder.named_modules() if isinstance(part, torch.nn.Linear)]
    inside = {name for name in linear if name.startswith(("backbone.blocks.", "projectors."))}
    assert {product.layer for product in found} == inside
    assert len(found) == len(inside)


def test_an_encoder_without_such_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantisationError, match="no linear layer behind its patch embedding to quantise: choose fp32"):
        examine(onnx.load(str(write_encoder(tmp_path / "encoder.onnx"))), VIEWS)


# in what form


def test_weights_are_int8_with_a_scale_for_each_column(examined: Examined, quantised: Path) -> None:
    graph = onnx.load(str(quantised)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    by_name = {node.name: node for node in graph.node}
    assert len(examined.products) == 12
    for product in examined.products:
        activation, weight = (made_by[name] for name in by_name[product.node].input)
        values, scale, zero = (constants[name] for name in weight.input)
        original = constant(examined.model, product.weight)
        assert (values.dtype, weight.op_type) == (np.int8, "DequantizeLinear")
        assert onnx.helper.get_node_attr_value(weight, "axis") == 1
        assert not zero.any()
        np.testing.assert_allclose(scale, np.abs(original).max(axis=0) / 127, rtol=1e-6)
        assert np.abs(values * scale - original).max() <= scale.max() / 2 * 1.001
        rounding = made_by[activation.input[0]]
        assert (rounding.op_type, activation.op_type) == ("QuantizeLinear", "DequantizeLinear")
        assert rounding.input[0] == product.factor
        assert constants[rounding.input[1]].shape == ()
        assert constants[rounding.input[2]].dtype == np.uint8


def test_nothing_else_is_touched(single: onnx.ModelProto, examined: Examined, quantised: Path) -> None:
    """Not the types, nodes and constants of filter, embedding, attention, statistics; LayerNorm's may be rescaled."""
    model = onnx.load(str(quantised))
    chosen = {product.node for product in examined.products}
    rescaled = {name for node in single.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:]}
    weights = {product.weight for product in products(single)}
    after = {node.name: node for node in model.graph.node}
    for node in single.graph.node:
        assert after[node.name].op_type == node.op_type
        if node.name not in chosen and node.op_type != "LayerNormalization":
            assert list(after[node.name].input) == list(node.input)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in single.graph.initializer:
        if tensor.name not in rescaled | weights:
            np.testing.assert_array_equal(constants[tensor.name], numpy_helper.to_array(tensor))
    assert {tensor.data_type for tensor in model.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
        TensorProto.INT8,
        TensorProto.UINT8,
    }
    assert {node.domain for node in model.graph.node} == {""}


def test_the_demo_detector_is_a_fraction_of_its_size(tmp_path: Path) -> None:
    """Its layers' weights take a quarter of their bytes; the filter and the rest are as large as before."""
    model = onnx.load(str(DEMO / "encoder.onnx"))
    found = products(model)
    layers = sum(constant(model, product.weight).nbytes for product in found)
    ranges = {product.factor: Range(-1, 1) for product in found}
    onnx.save(with_qdq(model, found, ranges), str(tmp_path / "encoder.onnx"))
    saved = (DEMO / "encoder.onnx").stat().st_size - (tmp_path / "encoder.onnx").stat().st_size
    assert 0.70 * layers < saved < 0.75 * layers


# rescaled channels


def outliers(model: SPAI) -> None:
    """Three channels of every LayerNormalization of a block are 40 times as large as the others."""
    for name, part in model.encoder.named_modules():
        if isinstance(part, torch.nn.LayerNorm) and name.startswith("backbone.blocks"):
            part.weight.data[3:6] *= 40


def test_rescaling_changes_nothing_in_fp32_and_lessens_the_error(tmp_path: Path) -> None:
    model = export(WIDE, tmp_path / "encoder.onnx", outliers)
    found = products(model)
    recorded = record(model, [product.factor for product in found], VIEWS)
    migrated = migrate(model, found, recorded)
    np.testing.assert_allclose(run(migrated.model), run(model), atol=2e-6, rtol=2e-5)
    plain = errors_alone(model, found, {name: Range.of(one.low, one.high) for name, one in recorded.items()}, VIEWS)
    ranges = {name: Range.of(one.low, one.high) for name, one in migrated.recorded.items()}
    lessened = errors_alone(migrated.model, migrated.products, ranges, VIEWS)
    changed = [product.factor in migrated.strengths for product in found]
    assert sum(changed) == 2 * WIDE.depth + len(WIDE.blocks)  # a block has two, each projector one
    assert np.linalg.norm(lessened) < 0.5 * np.linalg.norm(plain)


def split(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Queries, keys and values come from a product each, of one tensor."""
    thirds, names = np.split(constant(model, node.input[1]), 3, axis=1), [f"{node.name}_{part}" for part in range(3)]
    model.graph.initializer.extend(map(numpy_helper.from_array, thirds, [f"{name}_weight" for name in names]))
    parts = [onnx.helper.make_node("MatMul", [node.input[0], f"{name}_weight"], [name], name) for name in names]
    joined = onnx.helper.make_node("Concat", names, node.output, f"{node.name}_joined", axis=-1)
    before, (_, *after) = [*model.graph.node], [*model.graph.node][[*model.graph.node].index(node) :]
    del model.graph.node[:]
    model.graph.node.extend([*before[: len(before) - len(after) - 1], *parts, joined, *after])


def test_products_of_one_tensor_are_rescaled_together(single: onnx.ModelProto, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(single)
    (norm,) = (node for node in model.graph.node if node.name == "node_layer_norm")
    del norm.input[2:]  # and one without a shift
    expected = run(model)
    split(model, next(node for node in model.graph.node if norm.output[0] in node.input))
    found = examine(model, VIEWS)
    assert len(found.products) == len(products(single)) + 2
    assert norm.output[0] in found.migrated
    np.testing.assert_allclose(run(found.model), expected, atol=2e-6, rtol=2e-5)
    found.write(tmp_path / "encoder.onnx", 0)
    assert relative(run(onnx.load(str(tmp_path / "encoder.onnx"))), expected) < 0.05


def test_what_something_else_reads_is_not_rescaled(single: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(single)
    (norm,) = (node for node in model.graph.node if node.name == "node_layer_norm")
    model.graph.output.append(onnx.helper.make_tensor_value_info(norm.output[0], TensorProto.FLOAT, None))
    model.graph.node.append(onnx.helper.make_node("Identity", [norm.output[0]], ["copied"], "copied"))
    found = products(model)
    assert norm.output[0] in {product.factor for product in found}
    migrated = migrate(model, found, record(single, [product.factor for product in found], VIEWS))
    assert norm.output[0] not in migrated.strengths
    assert migrated.strengths


# which layers bear it


def test_the_error_of_a_layer_alone_is_that_of_a_graph_in_which_it_alone_is_quantised(examined: Examined) -> None:
    expected = run(examined.model)
    for index in (0, 3, 11):
        graph = with_qdq(examined.model, [examined.products[index]], examined.ranges)
        assert examined.errors[index] == pytest.approx(relative(run(graph), expected), rel=0.05)


def spoiled(model: SPAI) -> None:
    """A unit of one MLP is always 500, and ignored: the one scale of all units then leaves few steps to the others."""
    mlp = model.encoder.backbone.blocks[1].mlp  # type: ignore[union-attr, index]
    mlp.fc1.bias.data[7] = 500.0  # type: ignore[union-attr]
    mlp.fc2.weight.data[:, 7] = 0.0  # type: ignore[union-attr]


def test_a_layer_that_spoils_the_others_work_stays_in_fp32(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    before = run(export(WIDE, path, spoiled))
    fitted = fit(path, VIEWS, lambda: accuracy(0.001))
    (first, *others) = fitted.record["layers"]
    assert (fitted.left, fitted.record["products"], fitted.record["left_in_fp32"]) == (1, 11, 1)
    assert (first["layer"], first["int8"]) == ("backbone.blocks.1.mlp.fc2", False)
    assert all(one["int8"] for one in others)
    assert first["error_alone"] > 5 * others[0]["error_alone"]
    assert relative(run(onnx.load(str(path))), before) < first["error_alone"] / 2
    assert fitted.sentences[0].startswith("11 of 12 linear layers are in int8")
    assert fitted.sentences[1].endswith("  backbone.blocks.1.mlp.fc2: left in fp32")
    assert len(fitted.sentences) == 9


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        ([0.1] * 8, 0),
        ([0.02, 0.2, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02], 1),
        ([0.2, 1, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02], 2),
        ([0.1, 1, 10, 0.01], 1),  # of four, one
        ([1e-4, 9e-3, 1e-4, 1e-4], 0),  # nothing is changed by much
    ],
)
def test_how_many_spoil_the_others_work(errors: Sequence[float], count: int) -> None:
    assert spoilers(errors) == count


def accuracy(largest: float) -> Accuracy:
    spread = Spread(largest, largest)
    return Accuracy("fp32", "an engine", 3, 12, "here", spread, 0.1, 0, 0.01, passed=largest <= 0.01)


@pytest.mark.parametrize(
    ("found", "asked", "left"),
    [
        ([0.002], 1, 0),
        ([0.009, 0.002], 2, 1),
        ([0.03, 0.02, 0.002], 3, 3),
        ([0.009, 0.008, 0.003, 0.002], 4, 4),
        ([0.009, 0.008, 0.003, 0.006], 4, 3),  # all pass: the nearest all the same
        ([0.03, 0.02, 0.025, 0.03], 4, 1),  # none passes
    ],
)
def test_layers_are_left_out_until_the_check_is_content(
    examined: Examined, single: onnx.ModelProto, tmp_path: Path, found: list[float], asked: int, left: int
) -> None:
    path, waiting = tmp_path / "encoder.onnx", list(found)
    onnx.save(single, str(path))
    fitted = fit(path, VIEWS, lambda: accuracy(waiting.pop(0)))
    assert (fitted.left, len(found) - len(waiting)) == (left, asked)
    assert fitted.accuracy == accuracy(found[[0, 1, 3, 4].index(left)])
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert kinds.count("QuantizeLinear") == len(examined.products) - left
    order = [one["error_alone"] for one in fitted.record["layers"]]
    assert all(one >= other for one, other in pairwise(order))


# in the engines


def engine(name: str, path: Path, contract: Contract) -> Engine:
    (row, *_) = (row for row in BACKENDS if row.name == name and row.device == "cpu")
    artifact = Artifact("onnx", "int8", Graph.of(path), Graph("head.onnx", "0" * 64), {"device": "cpu"})
    if name == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")
    return row.open(path, contract, "cpu", artifact)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_engines_compute_what_the_graph_says(name: str, single: onnx.ModelProto, quantised: Path) -> None:
    contract = Contract.encoder((32, 32), WIDE.features)
    opened = engine(name, quantised, contract)
    expected = run(onnx.load(str(quantised)))
    (found,) = opened.run(VIEWS)
    wanted = relative(expected, run(single))
    assert 1e-4 < wanted < 0.05
    assert relative(found, run(single)) < 2 * wanted
    for count in (1, 2, 3):  # an interrupted run has other batches
        np.testing.assert_array_equal(opened.run(VIEWS[:count])[0], found[:count])


def test_onnx_runtime_multiplies_integers(examined: Examined, quantised: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(quantised), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert sum(kind in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm") for kind in kinds) == len(examined.products)


def test_openvino_multiplies_integers(examined: Examined, quantised: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")
    opened: Any = engine("openvino", quantised, Contract.encoder((32, 32), WIDE.features))
    found = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in opened._compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    assert sum(kind.lower() in ("u8", "i8") for kind in found) == len(examined.products)


@pytest.mark.parametrize("which", ["demo", "golden"])
def test_both_engines_score_as_fp32_does(which: str, golden_detector: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")
    exported = DEMO if which == "demo" else golden_detector
    images = [examples() / name for name in EXAMPLES] if which == "demo" else IMAGES
    manifest, graph = Manifest.load(exported), tmp_path / "encoder.onnx"
    model, views = onnx.load(str(exported / "encoder.onnx")), calibration_views(images, manifest.views, 8)
    migrated = migrate(model, products(model), record(model, [one.factor for one in products(model)], views))
    ranges = {name: Range.of(one.low, one.high) for name, one in migrated.recorded.items()}
    onnx.save(with_qdq(migrated.model, migrated.products, ranges), str(graph))
    contract = Contract.encoder(manifest.views.shape, manifest.features)
    with Detector.load(exported, backend="onnxruntime") as fp32:
        expected = [fp32.score(image).score for image in images]
        for name in ("openvino", "onnxruntime"):
            detector = Detector(manifest, engine(name, graph, contract), fp32.head, manifest.threshold)
            differences = np.abs(np.subtract([detector.score(image).score for image in images], expected))
            assert 0 < differences.max() <= LIMIT


# the command


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photographs").mkdir()
    for index in range(3):
        Image.fromarray(pixels(70, 90, index)).save(tmp_path / "photographs" / f"{index}.png")
    return tmp_path / "photographs"


def test_the_command_makes_int8_for_cpus(
    tiny_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    run: Run,
) -> None:
    """Without ModelOpt, beside a graph in fp32, and spai-run runs it."""
    monkeypatch.setitem(sys.modules, "modelopt", None)
    arguments = ["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--images", str(photographs)]
    assert main([*arguments, "--precision", "fp32", "--precision", "int8"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"^int8: (\d+) of \1 linear layers are in int8; alone, these change", out, re.MULTILINE)
    assert re.search(r"^int8: \|Δscore\| from fp32: at most \S+, .*, on 3 images of photographs$", out, re.MULTILINE)
    assert "\nint8: scales were found on 12 views of 3 images, and 128 images are wanted: scores" in out
    one, other = Manifest.load(tmp_path / "m").artifacts
    assert (one.precision, one.target) == ("fp32", {})
    assert (other.kind, other.precision, other.target) == ("onnx", "int8", {"device": "cpu"})
    assert (other.encoder.file, other.head) == ("encoder.int8.onnx", one.head)
    assert other.accuracy is not None
    assert other.accuracy.engine.startswith("OpenVINO" if find_spec("openvino") else "ONNX Runtime")
    record = other.options["quantised"]
    assert {name: record[name] for name in ("calibration_images", "calibration_views", "scored_too")} == {
        "calibration_images": 3,
        "calibration_views": 12,
        "scored_too": True,
    }
    assert (record["products"], record["left_in_fp32"]) == (len(record["layers"]), 0)
    assert len(record["layers"]) >= 12
    (entry,) = onnx.load(str(tmp_path / "m" / "encoder.int8.onnx")).metadata_props
    assert json.loads(entry.value)["precision"] == "int8"
    ran = run(photographs, "--engine", tmp_path / "m" / "encoder.int8.onnx", "--device", "cpu", "--format", "csv")
    assert (ran.code, ran.stdout.count("\n")) == (0, 4)


def test_scores_that_are_too_far_off_are_refused(
    tiny_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccuracyCheck, "compare", lambda *_: accuracy(0.02))
    settings = Settings((Precision.INT8,), images=photographs)
    with pytest.raises(ExportError, match=r"at most 2\.0e-02, .*; more than 0\.01 is refused: choose"):
        directory.export(tiny_checkpoint, tmp_path / "m", settings)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("settings", "cpu"),
    [
        (Settings((Precision.INT8,), images=DEMO), True),
        (Settings((Precision.INT8,), images=DEMO, trt=True), False),
        (Settings((Precision.INT8,), images=DEMO, int8_for=Int8For.CPU), True),
        (Settings((Precision.INT8,), images=DEMO, int8_for=Int8For.GPU), False),
        (Settings((Precision.INT8,), images=DEMO, int8_for=Int8For.GPU, trt=True), False),
    ],
)
def test_what_int8_is_for(settings: Settings, cpu: bool) -> None:
    assert settings.for_cpu(Precision.INT8) is cpu
    assert settings.around(Precision.INT8) is (Precision.FP32 if cpu else Precision.INT8)
    assert not settings.for_cpu(Precision.FP8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp16", "--int8-for", "cpu"], "--int8-for says what int8 is to run on: give --precision int8"),
        (
            ["--precision", "int8", "--trt", "--int8-for", "cpu"],
            "TensorRT builds nothing from int8 for a CPU",
        ),
        (["--precision", "int8", "--int8-for", "gpu"], "ModelOpt is not installed: pip install"),
        (["--precision", "int8", "--trt"], "ModelOpt is not installed: pip install"),
        (["--precision", "int8", "--precision", "fp8"], "ModelOpt is not installed: pip install"),
        (["--precision", "int8", "--attention", "fused"], "int8 needs its attention plain: leave --attention out"),
        (["--precision", "int8", "--int8-for", "tpu"], "--int8-for"),
    ],
)
def test_refusals(
    arguments: list[str],
    message: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    assert main(["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--images", ".", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
