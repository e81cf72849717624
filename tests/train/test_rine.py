"""RINE's training: on a frozen tower, with upstream's optimizer and objective."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from spai_train.checkpoint import CheckpointError, load_checkpoint
from spai_train.cli import main
from spai_train.detectors.rine import RINE, RINEConfig
from spai_train.fit import FitRecipe, fit
from spai_train.models.clip import visual_tower
from spai_train.models.pretrained import load_pretrained
from spai_train.recipe import load_recipe
from spai_train.training.losses import objective
from spai_train.training.optimizer import build_optimizer
from tests.golden import FOLDER
from tests.support.training import picture, resumed_run_ends_as_whole, same, write_labelled

TOWER = FOLDER / "clip_small.safetensors"


def recipe(table: Path, **overrides: object) -> FitRecipe:
    small = {
        "data.tables": [str(table)],
        "data.workers": 0,
        "device": "cpu",
        "model": {"width": 128, "depth": 2, "projection": 16, "layers": 1},
        "pretrained": str(TOWER),
        "batch_size": 8,
        "trackers": [],
    }
    return load_recipe("rine", "fit", FitRecipe, {**small, **overrides})


def test_it_learns_what_its_tower_sees(tmp_path: Path) -> None:
    """On tokens that the tower gave once, for it is frozen; 96 images of the two kinds."""
    torch.manual_seed(0)
    model = RINE(RINEConfig(128, 2, 64, 1))
    load_pretrained(model.encoder.backbone, TOWER)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(np.stack([picture(rng, generated=bool(index % 2), side=224) for index in range(96)]))
    labels = torch.arange(96) % 2
    with torch.inference_mode():
        tokens = torch.cat([model.encoder.backbone(model.encoder.pixels(part)) for part in images.split(16)])
    model.encoder.backbone, model.encoder.pixels = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    settings = recipe(tmp_path)
    loss_of, optimizer = objective(settings.objective, 64), build_optimizer(model, settings.optimizer, 0)
    losses = []
    for _ in range(200):
        verdict = model(tokens[:64, None].clone())
        losses.append(loss_of(verdict.logit, verdict.embedding, labels[:64].float(), 0))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    found = model.eval()(tokens[64:, None].clone()).logit[:, 0] > 0
    assert (found == labels[64:].bool()).all()


def test_fit_leaves_the_tower_as_it_is(tmp_path: Path) -> None:
    table = write_labelled(tmp_path, train=8, validation=4)
    fit(recipe(table), tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert checkpoint.detector.name == "rine"
    tower = visual_tower({name: tensor.float() for name, tensor in load_file(TOWER).items()})
    prefix = "encoder.backbone."
    trained = {name.removeprefix(prefix): t for name, t in checkpoint.state.items() if name.startswith(prefix)}
    assert same(trained, {name: tower[name] for name in trained})


def test_a_run_can_be_gone_on_with(tmp_path: Path) -> None:
    table = write_labelled(tmp_path, train=16, validation=4)
    assert resumed_run_ends_as_whole(recipe(table, **{"schedule.epochs": 2}), tmp_path)


def test_the_optimizer_is_upstreams_adam() -> None:
    """Which has no decay, so that it is what AdamW does without one."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    settings = load_recipe("rine", "fit", FitRecipe, {}).optimizer
    optimizers = [build_optimizer(models[0], settings, 0), torch.optim.Adam(models[1].parameters(), lr=1e-3)]
    for step in range(20):
        batch = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            optimizer.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


def test_there_is_no_rine_without_a_tower(tmp_path: Path) -> None:
    table = write_labelled(tmp_path, train=16, validation=4)
    with pytest.raises(
        CheckpointError, match=r"rine starts from a frozen CLIP: give --pretrained timm, or ViT-L-14\.pt"
    ):
        fit(recipe(table, pretrained=None), tmp_path / "run")


def test_a_detector_without_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fit", "--detector", "clipdet", "--output", str(tmp_path / "run")]) == 2
    said = (
        "there is no recipe for clipdet: give one with --recipe, or fit its linear layer alone with `spai-train probe`"
    )
    assert capsys.readouterr().err == f"spai-train: {said}\n"
