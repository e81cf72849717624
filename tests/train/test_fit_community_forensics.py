"""Training of Community Forensics: its recipe, its first weights, its steps against timm's network and torch's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from spai_runtime.errors import UserError
from spai_train.checkpoint import CheckpointError
from spai_train.data.augment import Augment
from spai_train.data.dataset import TrainingImages, collate
from spai_train.data.order import Ticket, permutation
from spai_train.data.rows import read_labelled
from spai_train.detectors.community_forensics import SPEC, CommunityForensics, CommunityForensicsConfig
from spai_train.fit import FitRecipe, fit
from spai_train.recipe import load_recipe
from spai_train.training.optimizer import build_optimizer
from spai_train.training.start import draw_model
from tests.support.training import dotted, largest_difference, same, tensors

SMALL = {"side": 32, "resize": 36, "patch_size": 8, "width": 64, "depth": 2}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images are brighter."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = [f"{index}.png,{index % 2},{'train' if index < 24 else 'val'}" for index in range(32)]
    for index in range(32):
        Image.fromarray(rng.integers(0, 128 + 127 * (index % 2), (44, 60, 3), np.uint8)).save(folder / f"{index}.png")
    (folder / "images.csv").write_text("\n".join(["image,class,split", *rows, ""]))
    return folder / "images.csv"


def recipe_of(table: Path, **overrides: Any) -> FitRecipe:
    """The one that ships, for a small network and a few images."""
    small = {
        "data.tables": [str(table)],
        "data.workers": 0,
        "device": "cpu",
        "model": dict(SMALL),
        "pretrained": None,
        "batch_size": 8,
        "schedule.epochs": 3,
        "trackers": [],
    }
    return load_recipe("community-forensics", "fit", FitRecipe, {**small, **dotted(overrides)})


def drawn(recipe: FitRecipe) -> CommunityForensics:
    """The model that `fit` starts with."""
    return draw_model(SPEC, recipe.model, recipe.seed, recipe.initial, recipe.pretrained, lambda: images_of(recipe))


def images_of(recipe: FitRecipe) -> TrainingImages:
    data = read_labelled(recipe.data)
    return TrainingImages(data.training, data.store, Augment(recipe.augmentation, 32), recipe.views, recipe.seed)


def timms(classes: int = 1) -> nn.Module:
    """The network of SMALL."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}
    return timm.create_model("vit_tiny_patch16_224", num_classes=classes, **sizes)  # type: ignore[no-any-return]


def test_the_recipe_has_upstreams_values() -> None:
    recipe = load_recipe("community-forensics", "fit", FitRecipe)
    assert (recipe.detector, recipe.name, recipe.model) == (SPEC.name, SPEC.name, CommunityForensicsConfig())
    assert (recipe.pretrained, recipe.frozen, recipe.views, recipe.batch_size) == ("timm", False, 1, 4 * 128)
    assert (recipe.objective.name, recipe.objective.smoothing) == ("bce", 0)
    assert (recipe.optimizer.name, recipe.optimizer.betas, recipe.optimizer.eps) == ("adamw", (0.9, 0.999), 1e-8)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.clip) == (1e-2, 1.0)
    rates = recipe.scaled.optimizer.learning_rate, recipe.scaled.schedule.final_rate
    assert rates == pytest.approx((2e-5, 2e-5 * 0.001))
    assert recipe.schedule.warmup_epochs / recipe.schedule.epochs == 0.2
    drawn_from = recipe.augmentation
    assert (drawn_from.jpeg_quality, drawn_from.degrees, drawn_from.ratio) == ((75, 100), 15, (3 / 4, 4 / 3))
    with torch.device("meta"):
        model = SPEC.build(recipe.model)
    assert model.encoder.backbone.family.hub == "vit_small_patch16_384.augreg_in21k_ft_in1k"
    groups = build_optimizer(model, recipe.scaled.optimizer, 12, prefix="encoder.backbone.").param_groups
    assert {group["peak"] for group in groups} == {2e-5}


@pytest.mark.parametrize(("side", "width", "patch"), [(384, 384, 16), (224, 384, 32), (384, 192, 16), (224, 192, 16)])
def test_timm_has_what_it_starts_from(side: int, width: int, patch: int) -> None:
    with torch.device("meta"):
        backbone = SPEC.build(CommunityForensicsConfig(side, patch, width, 1)).encoder.backbone
    name = backbone.family.hub
    assert name in timm.list_pretrained()
    assert timm.models.get_pretrained_cfg(name).input_size == (3, side, side)


def test_it_learns_and_resumes_to_the_same_bytes(table: Path, tmp_path: Path) -> None:
    recipe = recipe_of(table, optimizer__learning_rate=1e-3)

    def dies(epoch: int, _: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    whole = fit(recipe, tmp_path / "whole")
    losses = [entry["train_loss"] for entry in whole.history]
    assert losses[-1] < 0.5 * losses[0]
    before, after = drawn(recipe).state_dict(), tensors(tmp_path / "whole" / "last.safetensors")
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "cut", on_epoch=dies)
    assert fit(recipe, tmp_path / "cut", resume=True) == whole
    for name in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_steps_are_those_of_torch_on_timms_network(table: Path, tmp_path: Path) -> None:
    """Without weight decay, from which ours spares norms and biases, and at one rate."""
    rates = {"optimizer__learning_rate": 1e-3, "schedule__final_rate": 1e-3, "schedule__warmup_epochs": 0}
    recipe = recipe_of(table, schedule__epochs=1, optimizer__weight_decay=0, optimizer__eps=1e-4, **rates)
    model, images = timms(), images_of(recipe)
    model.load_state_dict({theirs(name): tensor for name, tensor in drawn(recipe).state_dict().items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0, eps=1e-4)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for chosen in permutation(24, recipe.seed, 0).reshape(3, 8).tolist():
        batch = collate([images[Ticket(0, index)] for index in chosen])
        pixels = batch.views[:, 0].permute(0, 3, 1, 2) / 255
        optimizer.zero_grad()
        nn.BCEWithLogitsLoss()(model((pixels - mean) / std), batch.labels[:, None]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
    fit(recipe, tmp_path / "run")
    found = tensors(tmp_path / "run" / "last.safetensors")
    assert largest_difference({theirs(name): part for name, part in found.items()}, model.state_dict()) < 1e-6


def theirs(name: str) -> str:
    """Our name of a tensor → timm's."""
    return name.removeprefix("encoder.backbone.").replace("head.linear.", "head.")


def test_it_starts_from_a_file_in_timms_names(table: Path, tmp_path: Path) -> None:
    state = timms(classes=1000).state_dict()
    torch.save(state, tmp_path / "timm.pth")
    model = drawn(recipe_of(table, pretrained=str(tmp_path / "timm.pth")))
    backbone: dict[str, Tensor] = {name: part for name, part in state.items() if not name.startswith("head.")}
    assert same(backbone, model.encoder.backbone.state_dict())
    head = model.head.linear.weight.detach()
    assert 0.9 / 8 < head.abs().max() <= 1 / 8  # torch's nn.Linear: U(−1/√64, 1/√64)
    with pytest.raises(CheckpointError, match=r"has other shapes in blocks\.0\.attn\.proj\.bias, "):
        drawn(recipe_of(table, pretrained=str(tmp_path / "timm.pth"), model__width=128))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"initial": "fan_in"}, "community-forensics is drawn as upstream draws it: leave initial=fan_in out"),
        ({"pretrained": "timm"}, "timm has no such pre-training: name the file of one"),
    ],
)
def test_what_it_does_not_start_from(overrides: dict[str, Any], said: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        fit(recipe_of(table, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()
