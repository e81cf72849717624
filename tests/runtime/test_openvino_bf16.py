"""An encoder in fp32 that OpenVINO computes in bf16: which of it, how near it stays, and that it is compared first."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spai_export.choices import Precision
from spai_export.precision import cast
from spai_runtime import Detector
from spai_runtime.engines import openvino as engine
from spai_runtime.engines.openvino_bf16 import lower
from spai_train.checkpoint import load_checkpoint
from spai_train.detectors import find
from spai_train.detectors.spai.model import SPAI
from tests.golden import CHECKPOINT, IMAGES
from tests.support.commands import Run
from tests.support.images import Write, pixels

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")


def lowered(detector: Path) -> Any:
    model = engine._read(detector / "encoder.onnx")
    lower(model)
    return model


def types(model: Any, kind: str) -> Counter[str]:
    """Of what the nodes of a kind take first."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == kind]
    return Counter(node.input(0).get_element_type().get_type_name() for node in nodes)


def test_the_products_of_blocks_and_projectors_are_in_bf16(tiny_detector: Path, tiny_model: SPAI) -> None:
    """Counted in the model: six linear layers and two products of attention in a block, and the projectors' layers."""
    config, model = tiny_model.config, lowered(tiny_detector)
    expected = (6 + 2) * config.depth + config.projection_layers * len(config.blocks)
    assert types(model, "MatMul")["bf16"] == expected
    assert types(model, "Softmax") == {"bf16": config.depth}
    in_single = sum(isinstance(module, torch.nn.Linear) for module in tiny_model.encoder.context.modules())
    assert types(model, "MatMul")["f32"] == 4 + in_single, "the spectral filter's, and those of the spectral context"


def test_all_else_stays_in_fp32(tiny_detector: Path) -> None:
    model = lowered(tiny_detector)
    for kind in ("Convolution", "MVN", "ReduceSum", "ReduceMean", "Divide", "Sqrt"):
        found = types(model, kind)
        assert found["f32"] > 0, kind
        assert set(found) == {"f32"}, kind
    assert [value.get_element_type().get_type_name() for value in model.outputs] == ["f32"]


def test_it_is_as_near_as_torch_in_bf16(golden_detector: Path, bf16: Path) -> None:  # noqa: ARG001
    """Rounding is what the model's own half-precision copy does, in other places by a little."""
    views = torch.from_numpy(np.stack([pixels(224, 224, seed) for seed in range(4)]))
    encoder = load_checkpoint(CHECKPOINT).model().encoder.eval()
    half = cast(find("spai"), encoder, Precision.BF16)
    with torch.inference_mode(), Detector.load(golden_detector, device="cpu", precision="bf16") as detector:
        exact, rounded = encoder(views).numpy(), half(views).numpy()
        (found,) = detector.encoder.run(views.numpy())
    assert 0 < np.abs(found - exact).max() <= 3 * np.abs(rounded - exact).max()


def test_a_views_features_do_not_depend_on_its_batch(golden_detector: Path, bf16: Path) -> None:  # noqa: ARG001
    views = np.stack([pixels(224, 224, seed) for seed in range(5)])
    with Detector.load(golden_detector, device="cpu", precision="bf16") as detector:
        (whole,) = detector.encoder.run(views)
        for start, stop in ((0, 1), (1, 3), (3, 5)):
            np.testing.assert_array_equal(detector.encoder.run(views[start:stop])[0], whole[start:stop])


def test_the_processor_computes_in_bf16(golden_detector: Path) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not multiply bf16")
    compiled = engine.OpenVinoEngine(golden_detector / "encoder.onnx", contract(golden_detector), bf16=True)._compiled
    kinds = Counter(
        (node.get_rt_info()["layerType"].value, node.get_rt_info()["runtimePrecision"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
    )
    assert kinds["FullyConnected", "bf16"] >= 4 * 3, "the golden model has three blocks"
    assert kinds["Convolution", "bf16"] == 0


def contract(detector: Path) -> Any:
    from spai_runtime.engines.base import Contract  # noqa: PLC0415
    from spai_runtime.manifest import Manifest  # noqa: PLC0415

    manifest = Manifest.load(detector)
    return Contract.encoder(manifest.views.shape, manifest.features)


# ---- scores are compared before it is used


def test_scores_are_compared_once(golden_detector: Path, bf16: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spai_runtime")
    for _ in range(2):
        with Detector.load(golden_detector, device="cpu") as detector:
            assert detector.precision == "bf16"
    assert caplog.messages == ["comparing bf16 with fp32 on 10 example images, once"]
    (kept,) = (bf16 / "checks").iterdir()
    found = json.loads(kept.read_bytes())
    assert (found["passed"], found["images"], found["labels_changed"]) == (True, 10, 0)
    with Detector.load(golden_detector, device="cpu", precision="fp32") as single:
        assert found["against"] == f"fp32 in {single.encoder.label}"


def test_scores_that_differ_are_those_of_fp32(
    golden_detector: Path,
    bf16: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("spai_runtime.accuracy.LIMIT", -1.0)
    for _ in range(2):
        caplog.clear()
        with Detector.load(golden_detector, device="cpu") as detector:
            assert detector.precision == "fp32"
            assert caplog.messages == [
                f"encoder.onnx gives other scores in bf16 than in fp32; {detector.encoder.label} runs instead"
            ]


def test_what_cannot_be_kept_is_not_found_out(
    golden_detector: Path, bf16: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bf16.write_text("a file")
    with Detector.load(golden_detector, device="cpu") as detector:
        assert detector.precision == "fp32"
    assert "set SPAI_CACHE to a folder, or give --precision bf16" in caplog.text
    with Detector.load(golden_detector, device="cpu", precision="bf16") as detector:
        assert detector.precision == "bf16"


def test_a_graph_that_is_named_stays_as_it_is(golden_detector: Path, bf16: Path) -> None:
    with Detector.load(golden_detector / "encoder.onnx", device="cpu") as detector:
        assert detector.precision == "fp32"
    assert not bf16.exists()


def test_scores_of_the_golden_images(golden_detector: Path, bf16: Path) -> None:  # noqa: ARG001
    single = Detector.load(golden_detector, device="cpu", precision="fp32")
    with single, Detector.load(golden_detector, device="cpu") as half:
        for path in IMAGES:
            assert half.score(path).score == pytest.approx(single.score(path).score, abs=5e-3)


def test_a_run_is_not_resumed_in_another_precision(
    run: Run, photo: Write, golden_detector: Path, bf16: Path, tmp_path: Path
) -> None:
    photo("images/a.png", 230, 230)
    path, record = tmp_path / "scores.csv", tmp_path / "scores.csv.run.json"
    call = tmp_path / "images", "--engine", golden_detector, "--device", "cpu", "--output", path
    assert run(*call).code == 0
    assert json.loads(record.read_bytes())["run"]["precision"] == "bf16"
    half = path.read_bytes()
    again = run(*call, "--resume", "--precision", "fp32")
    assert again.code == 0
    assert "is replaced when this run is complete" in again.stderr
    assert "precision" not in json.loads(record.read_bytes())["run"]
    assert path.read_bytes() != half
    assert bf16.exists()
