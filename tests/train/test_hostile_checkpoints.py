"""Whatever a checkpoint holds: an error of one line and exit code 2 or 4, from every command that reads one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spai_export.cli import main as export
from spai_train.checkpoint import CheckpointError, load_checkpoint
from spai_train.cli import main as train
from spai_train.detectors.spai.model import SPAI
from spai_train.models.pretrained import load_pretrained
from tests.support.hostile_checkpoints import PICKLES, SAFETENSORS, expanded, ours, saved, upstream
from tests.support.models import CONFIGS, UNEVEN

CASES = [(".pth", name, make) for name, make in PICKLES.items()]
CASES += [(".safetensors", name, make) for name, make in SAFETENSORS.items()]
SHOWN = pytest.mark.parametrize(("suffix", "name", "make"), CASES, ids=[f"{name}{suffix}" for suffix, name, _ in CASES])


def test_what_they_are_made_of_loads(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(upstream(lambda _: None))
    (tmp_path / "a.safetensors").write_bytes(ours())
    assert load_checkpoint(tmp_path / "a.pth").config == load_checkpoint(tmp_path / "a.safetensors").config == UNEVEN


@SHOWN
def test_it_is_refused_in_a_line(tmp_path: Path, suffix: str, name: str, make: Callable[[], bytes]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make())
    with pytest.raises(CheckpointError, match=r"^(.*a\.(pth|safetensors) |the checkpoint)") as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable(), name
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name", ["2^70 heads", "complex weights", "a config that is a list", "a memo that is not there"]
)
def test_the_commands_end_in_a_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(PICKLES[name]())
    (tmp_path / "a.csv").write_text("image,class,split\n")
    commands: list[tuple[Callable[[list[str]], int], list[object]]] = [
        (export, ["--ckpt", path, "--output", tmp_path / "out"]),
        (train, ["convert", path, tmp_path / "b.safetensors"]),
        (train, ["evaluate", tmp_path / "a.csv", "--ckpt", path, "--output", tmp_path / "e"]),
    ]
    for command, arguments in commands:
        assert command([str(argument) for argument in arguments]) in (2, 4)
        said = capsys.readouterr().err
        assert (said.count("\n"), "unexpected" in said, "Traceback" in said) == (1, False, False)
    assert not (tmp_path / "out").exists()


def pretrained(family: str) -> dict[str, torch.Tensor]:
    backbone = SPAI(CONFIGS[family]).encoder.backbone  # type: ignore[index]
    prefix = "encoder." if family == "mfm" else ""
    return {f"{prefix}{name}": tensor for name, tensor in backbone.state_dict().items()}


@pytest.mark.parametrize(
    ("family", "name", "change"),
    [
        ("clip", "pos_embed", lambda _: torch.tensor(1.0)),
        ("clip", "pos_embed", lambda tensor: tensor[:, :1]),
        ("clip", "pos_embed", lambda tensor: tensor[:, :4]),
        ("clip", "pos_embed", lambda tensor: tensor[:, :10].to(torch.complex64)),
        ("clip", "pos_embed", lambda tensor: tensor[:, :10, :3]),
        ("dinov2", "patch_embed.proj.weight", lambda tensor: tensor * float("nan")),
        ("dinov2", "norm.bias", lambda tensor: tensor.to_sparse()),
        ("dinov2", "norm.bias", expanded),
        ("clip", "norm_pre.bias", lambda tensor: tensor.int()),
        ("mfm", "encoder.patch_embed.proj.bias", lambda tensor: tensor.to(torch.complex64)),
    ],
)
def test_a_backbone_is_refused_in_a_line(
    tmp_path: Path, family: str, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    state = pretrained(family)
    state[name] = change(state[name])
    (tmp_path / "a.pth").write_bytes(saved({"model": state}))
    backbone = SPAI(CONFIGS[family]).encoder.backbone  # type: ignore[index]
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(backbone, tmp_path / "a.pth")
    assert str(caught.value).isprintable()
