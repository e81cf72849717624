"""Graphs that spai-export wrote in half precision, in OpenVINO beside ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import export
from spai_runtime import Detector
from tests.golden import CHECKPOINT, IMAGES
from tests.support.images import pixels

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")

VIEWS = np.stack([pixels(224, 224, seed) for seed in range(4)])


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden detector in fp16 and bf16."""
    folder = tmp_path_factory.mktemp("half") / "detector"
    return export(CHECKPOINT, folder, Settings((Precision.FP16, Precision.BF16), Attention.PLAIN)).directory


def found(path: Path, backend: str) -> Mapping[str, np.ndarray]:
    with Detector.load(path, device="cpu", backend=backend) as detector:
        return {
            "features": detector.encoder.run(VIEWS)[0],
            "scores": np.array([detector.score(image).score for image in IMAGES[:4]]),
        }


def test_fp16_is_what_onnx_runtime_computes(half: Path) -> None:
    """Both multiply its weights in fp32 on a CPU; ONNX Runtime rounds what lies between to fp16."""
    ours, theirs = (found(half / "encoder.onnx", backend) for backend in ("openvino", "onnxruntime"))
    np.testing.assert_allclose(ours["features"], theirs["features"], atol=1e-3)
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=2e-4)


def test_bf16_is_near_fp32(half: Path, golden_detector: Path) -> None:
    """ONNX Runtime has no kernels for it on a CPU."""
    ours, single = found(half / "encoder.bf16.onnx", "openvino"), found(golden_detector, "onnxruntime")
    difference = np.abs(ours["features"] - single["features"]).max()
    assert 1e-4 < difference < 5e-2, "it is rounded, and not far"
    np.testing.assert_allclose(ours["scores"], single["scores"], atol=5e-3)
