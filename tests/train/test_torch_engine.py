"""A checkpoint scored in torch, and the same exported: one pipeline, the same numbers."""

from pathlib import Path

import pytest
import torch

from spai_runtime.detector import Detector
from spai_train.detectors.spai.model import SPAI
from spai_train.torch_engine import (
    CPU_BATCH_SIZE,
    CUDA_BATCH_SIZE,
    TorchEngine,
    as_detector,
    evaluating,
    load_detector,
)
from tests.support.images import Write


def test_scores_are_those_of_the_exported_detector(tiny_checkpoint: Path, tiny_detector: Path, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    with load_detector(tiny_checkpoint, "cpu") as ours, Detector.load(tiny_detector, device="cpu") as exported:
        assert ours.score(path).logit == pytest.approx(exported.score(path).logit, abs=1e-5)
        assert ours.threshold == exported.threshold
        assert ours.manifest.views == exported.manifest.views


def test_a_threshold_of_the_user_wins(tiny_checkpoint: Path) -> None:
    with load_detector(tiny_checkpoint, "cpu", threshold=0.25) as detector:
        assert (detector.threshold.value, detector.threshold.source) == (0.25, "given by the user")


def test_bf16_is_close_and_comes_out_as_float32(tiny_model: SPAI, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    half = as_detector(tiny_model, precision=torch.bfloat16).score(path)
    assert half.attention.dtype == "float32"
    assert half.logit == pytest.approx(as_detector(tiny_model).score(path).logit, abs=0.05)


@pytest.mark.parametrize("device", ["cpu", "cpu:1"])
def test_batches_suit_the_device(device: str) -> None:
    """One of several processes on a CPU has a number."""
    assert TorchEngine(torch.nn.Identity(), device).batch_size == CPU_BATCH_SIZE
    assert TorchEngine(torch.nn.Identity(), "cuda:0").batch_size == CUDA_BATCH_SIZE


def test_evaluating_gives_the_mode_back() -> None:
    model = torch.nn.Dropout().train()
    with evaluating(model):
        assert not model.training
    assert model.training
