"""What a fit takes from the file of its pre-training, and what it says where that does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spai_train.adopted import load_fit
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.config import SPAIConfig
from spai_train.detectors.spai.pretraining import backbone_of
from spai_train.models.mfm import MaskedFrequencyModel, save_pretrained
from spai_train.tensors import CheckpointError
from spai_train.training.start import draw_model

SMALL = {"tile_size": 32, "mask_radius": 4, "patch_size": 8, "width": 16, "depth": 3, "heads": 2, "mlp_ratio": 2.5}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """As `pretrain` leaves them, of dimensions that no recipe has."""
    path = tmp_path / "last.pth"
    save_pretrained(path, MaskedFrequencyModel(SPAIConfig(**SMALL)))
    return path


def recipe_of(path: Path, **model: Any) -> Path:
    path.write_text(yaml.safe_dump({"fit": {"model": model}}))
    return path


def test_a_file_says_its_dimensions(weights: Path) -> None:
    assert backbone_of(weights) == SMALL


def test_a_file_without_a_configuration_says_what_its_tensors_do(weights: Path) -> None:
    torch.save({"model": torch.load(weights, weights_only=True)["model"]}, weights)
    assert backbone_of(weights) == {key: value for key, value in SMALL.items() if key not in ("heads", "mask_radius")}


@pytest.mark.parametrize("name", ["spai", "demo"])
def test_dimensions_that_nobody_chose_are_those_of_the_file(name: str, weights: Path) -> None:
    adopted = load_fit(name, {"pretrained": str(weights), "views": 1})
    config = adopted.recipe.model
    assert {key: getattr(config, key) for key in SMALL} == SMALL
    assert (config.blocks, config.tile_stride) == ((0, 1, 2), 32)
    (note,) = adopted.notes
    assert note.startswith(f"the model has the dimensions of {weights}: ")
    assert "depth 3" in note
    draw_model(SPEC, config, 0, "upstream", str(weights), None)  # type: ignore[arg-type]  it fits, without an image


def test_dimensions_that_the_user_chose_stay(weights: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "own.yaml", mask_radius=7, blocks=[1])
    adopted = load_fit(recipe, {"pretrained": str(weights), "model.width": 16})
    assert (adopted.recipe.model.mask_radius, adopted.recipe.model.blocks, adopted.recipe.model.depth) == (7, (1,), 3)
    assert "mask_radius" not in adopted.notes[0]


def test_nothing_is_said_where_the_recipe_has_what_the_file_has(weights: Path, tmp_path: Path) -> None:
    adopted = load_fit(recipe_of(tmp_path / "own.yaml", **SMALL), {"pretrained": str(weights)})
    assert adopted.notes == ()


def test_a_checkpoint_to_go_on_from_is_not_overruled(weights: Path) -> None:
    adopted = load_fit("spai", {"pretrained": str(weights), "start": "whole.safetensors"})
    assert (adopted.recipe.model.depth, adopted.notes) == (12, ())


@pytest.mark.parametrize("beside", [True, False])
def test_keys_that_differ_are_named_and_the_recipe_beside_the_file(beside: bool, weights: Path) -> None:
    source = weights.with_name("recipe.yaml")
    if beside:
        source.touch()
    config = replace(SPAIConfig(**SMALL), depth=2, heads=4, blocks=())
    said = (
        f"{weights} does not fit the recipe: its backbone has depth 3, heads 2, and the recipe has depth 2, heads 4; "
        "leave model.depth, model.heads out of the recipe" + (f", or set what {source} has" if beside else "")
    )
    with pytest.raises(CheckpointError) as caught:
        draw_model(SPEC, config, 0, "upstream", str(weights), None)  # type: ignore[arg-type]  no images are read
    assert str(caught.value) == said


def test_a_file_of_something_else_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"model": {"other.weight": torch.ones(2)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="it is not a masked-frequency pre-training"):
        load_fit("spai", {"pretrained": str(tmp_path / "other.pth")})


def test_other_backbones_have_the_dimensions_of_their_names(weights: Path) -> None:
    assert load_fit("spai", {"pretrained": str(weights), "model.backbone": "clip"}).recipe.model.depth == 12
