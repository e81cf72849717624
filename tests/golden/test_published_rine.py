"""RINE's published 2-class checkpoint, whose tower is not at hand: what was trained, and that on a random tower."""

import os
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from spai_export.choices import Settings
from spai_export.directory import write
from spai_export.source import Source
from spai_runtime import Detector
from spai_train.detectors.rine import RINE, RINEConfig, read
from spai_train.tensors import read as read_file
from tests.golden import FOLDER
from tests.support.images import pixels

CHECKPOINT = FOLDER / "rine" / "model_2class_trainable.pth"
FULL = "SPAI_FULL"  # set, ViT-L/14 is exported at full size, which takes minutes


def rectified(state: dict[str, Tensor], part: str, x: Tensor) -> Tensor:
    """The layers of a projection, as the paper writes them: linear, ReLU; dropout does nothing."""
    names = [name for name in state if name.startswith(f"{part}.") and name.endswith("weight")]
    names.sort(key=lambda name: int(name.split(".")[1]))
    return reduce(lambda x, name: (x @ state[name].T + state[name.replace("weight", "bias")]).relu(), names, x)


def defined(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Equations 3 to 6 of arXiv:2402.19091 on CLS tokens (N, 24, 1024), in double precision; :returns: logits (N,)"""
    state = {name: tensor.double() for name, tensor in state.items()}
    tokens = rectified(state, "proj1", tokens.double())
    z = rectified(state, "proj2", (state["alpha"].softmax(dim=1) * tokens).sum(dim=1))
    z = rectified({name: state[name] for name in state if not name.startswith("head.6.")}, "head", z)
    return (z @ state["head.6.weight"].T + state["head.6.bias"])[:, 0]


def published() -> dict[str, Tensor]:
    return dict(torch.load(CHECKPOINT, map_location="cpu", weights_only=True))


def test_what_was_trained() -> None:
    config, state = read(read_file(CHECKPOINT))
    assert config == RINEConfig(width=1024, depth=24, projection=128, layers=4)
    with torch.device("meta"):
        model = RINE(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.encoder.backbone, model.encoder.pixels = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    tokens = torch.randn(5, 24, 1024, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model.eval().head(model.encoder(tokens)[:, None])[:, 0]
    expected = defined(published(), tokens)
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits.double(), expected, atol=1e-4)


@pytest.mark.skipif(FULL not in os.environ, reason=f"ViT-L/14 at full size: set {FULL}=1")
@pytest.mark.timeout(1200)
def test_on_a_random_tower(tmp_path: Path) -> None:
    """Against timm's ViT-L/14, of whose blocks the second LayerNorm is read."""
    torch.manual_seed(0)
    tower = timm.create_model("vit_large_patch14_clip_quickgelu_224", num_classes=0).eval()
    torch.save(tower.state_dict(), tmp_path / "tower.pth")
    found: list[Tensor] = []
    for block in tower.blocks:
        block.norm2.register_forward_hook(lambda _module, _inputs, output: found.append(output[:, 0]))
    image = pixels(224, 224, seed=1)
    mean, std = (torch.tensor(tower.default_cfg[key]) for key in ("mean", "std"))
    with torch.inference_mode():
        tower(((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None])
    expected = float(defined(published(), torch.stack(found, dim=1))[0])
    directory = write(Source.load(CHECKPOINT, Settings(), tower=tmp_path / "tower.pth"), tmp_path / "rine").directory
    with Detector.load(directory, device="cpu") as detector:
        assert detector.score(image).logit == pytest.approx(expected, abs=1e-4)
