"""Devices, precisions and trackers: what there is, and one sentence for what there is not."""

from pathlib import Path

import pytest
import torch

from spai_train.training import launch as launching
from spai_train.training.launch import LaunchError, autocast_dtype, launch, resolve_precision
from spai_train.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("precision", "cpu", "bf16", "expected"),
    [
        ("auto", True, True, "fp32"),
        ("auto", False, True, "bf16"),
        ("auto", False, False, "fp32"),
        ("bf16", True, False, "bf16"),
        ("fp32", False, True, "fp32"),
        ("fp16", False, True, "fp16"),
    ],
)
def test_precision(precision: str, cpu: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert resolve_precision(precision, cpu=cpu) == expected


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(LaunchError, match="fp16 trains on a GPU alone: set precision=bf16 or fp32"):
        resolve_precision("fp16", cpu=True)


def test_one_process_launches_in_one_precision_after_another() -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("auto", torch.float32)):
        settings = TrainingSettings(device="cpu", precision=precision, accumulate=3, trackers=())  # type: ignore[arg-type]
        accelerator = launch(settings, Path("nowhere"), all_train=True)
        assert (accelerator.device.type, autocast_dtype(accelerator)) == ("cpu", dtype)
        assert (accelerator.num_processes, accelerator.gradient_accumulation_steps) == (1, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "there is no GPU that torch can use: set device=cpu"),
        ({"device": "cpu", "trackers": ("scoreboard",)}, "there is no tracker scoreboard; trackers are: .*tensorboard"),
        ({"device": "cpu", "trackers": ("wandb",)}, "wandb is not installed: pip install wandb, or set trackers="),
    ],
)
def test_what_is_not_there_is_a_sentence(
    options: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launching, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(LaunchError, match=said) as caught:
        launch(TrainingSettings(**options), tmp_path / "run", all_train=True)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
