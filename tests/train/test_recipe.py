"""Recipes: sections, overrides, and what is wrong with them in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest

from spai_train.fit import FitRecipe
from spai_train.pretrain import PretrainRecipe
from spai_train.recipe import (
    differing_keys,
    dump_recipe,
    find_recipe,
    load_recipe,
    parse_assignments,
)
from spai_train.sections import RecipeError


@pytest.mark.parametrize(("section", "kind"), [("fit", FitRecipe), ("pretrain", PretrainRecipe)])
def test_the_published_recipe_is_the_default(section: str, kind: type) -> None:
    assert load_recipe("spai", section, kind) == kind()


def test_published_values_are_those_of_the_paper() -> None:
    recipe = load_recipe("spai", "fit", FitRecipe)
    assert (recipe.batch_size, recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (72, 35, 5)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (5e-4, 0.05)
    assert recipe.optimizer.betas == (0.9, 0.999)
    assert (recipe.model.dropout, recipe.views, recipe.objective.name) == (0.5, 4, "bce")
    assert recipe.schedule.final_rate == recipe.schedule.warmup_rate == 2.5e-7


def test_overrides_reach_nested_keys() -> None:
    given = parse_assignments(["optimizer.learning_rate=1e-4", "batch_size=8", "data.tables=[a.csv, b.csv]"])
    recipe = load_recipe("spai", "fit", FitRecipe, given)
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.optimizer.weight_decay == 0.05
    assert (recipe.batch_size, recipe.data.tables) == (8, ("a.csv", "b.csv"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, {"depth": 4, "blocks": (0, 2), "tile_stride": 64}),
        ({"model.depth": 2}, {"depth": 2, "blocks": (0, 1)}),
        ({"model.depth": 6}, {"depth": 6, "blocks": (0, 1, 2, 3, 4, 5)}),
        ({"model.depth": 4}, {"depth": 4, "blocks": (0, 2)}),  # as it was
        ({"model.depth": 6, "model.blocks": [1, 5]}, {"depth": 6, "blocks": (1, 5)}),
        ({"model.tile_size": 128}, {"tile_size": 128, "tile_stride": 128, "blocks": (0, 2)}),
        ({"model.tile_size": 128, "model.tile_stride": 64}, {"tile_stride": 64}),
        ({"model.backbone": "clip"}, {"width": 768, "depth": 12, "heads": 12, "blocks": tuple(range(12))}),
        ({"model.backbone": "clip", "model.depth": 3}, {"width": 768, "depth": 3, "blocks": (0, 1, 2)}),
    ],
)
def test_keys_that_follow_from_one_that_is_set_follow_it_unless_they_are_set_too(
    overrides: dict[str, object], expected: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    sizes = "tile_size: 64, tile_stride: 64, width: 48, depth: 4, heads: 2, blocks: [0, 2]"
    path.write_text(f"fit: {{model: {{{sizes}}}}}")
    model = load_recipe(path, "fit", FitRecipe, overrides).model
    assert {key: getattr(model, key) for key in expected} == expected


def test_tiles_lie_side_by_side_where_no_stride_is_named() -> None:
    model = load_recipe("spai", "fit", FitRecipe, {"model.tile_size": 96}).model
    assert (model.tile_size, model.tile_stride) == (96, 96)


def test_what_is_dumped_is_what_was_loaded(tmp_path: Path) -> None:
    recipe = load_recipe("spai", "fit", FitRecipe, {"freeze": True, "model.blocks": [1, 3]})
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe("fit", recipe))
    assert load_recipe(path, "fit", FitRecipe) == recipe


def test_differing_keys_are_dotted() -> None:
    one = FitRecipe()
    other = replace(one, batch_size=8, optimizer=replace(one.optimizer, clip=1.0))
    assert differing_keys(one, other) == ["batch_size", "optimizer.clip"]
    assert differing_keys(one, one) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("fit: {batch_sise: 3}", "has no key `batch_sise`; it has seed, data"),
        ("fit: {optimizer: {lr: 3}}", r"`optimizer` in the section `fit` of .* has no key `lr`"),
        ("fit: {batch_size: many}", "batch_size"),
        ("fit: {batch_size: 0}", ">= 1"),
        ("fit: {augmentation: {jpeg: 2}}", "<= 1"),
        ("fit: {stopping: {patience: 0}}", "at least 1 epoch"),
        ("fit: {schedule: {epochs: 0}}", ">= 1"),
        ("fit: {optimizer: {learning_rate: -1}}", ">= 0"),
        ("fit: {optimizer: {betas: [0.9, 1.5]}}", "< 1"),
        ("fit: {model: {depth: 4, blocks: [0, 4]}}", "blocks .0, 4. are not rising indices of 4 blocks"),
        ("fit: {objective: {name: mse}}", "mse"),
        ("pretrain: {}", "has no section `fit`; it has: pretrain"),
        ("[1, 2]", "must hold sections"),
        ("fit: [", "is not YAML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=said) as caught:
        load_recipe(path, "fit", FitRecipe)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_those_that_ship() -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe nowhere.yaml; .* one of: .*spai"):
        find_recipe("nowhere.yaml")


@pytest.mark.parametrize("assignment", ["batch_size", "=3", "a=[1"])
def test_a_wrong_assignment_is_one_sentence(assignment: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        parse_assignments([assignment])


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size has no keys below it"):
        load_recipe("spai", "fit", FitRecipe, {"batch_size.more": 1})


@pytest.mark.parametrize("name", ["cospy", "cospy-progan"])
@pytest.mark.parametrize("stage", [None, "semantic", "artifact", "fusion"])
def test_stages_of_cospy_are_as_published(name: str, stage: str | None) -> None:
    """Upstream's `train.sh`, `train.py` and the transforms of its detectors."""
    recipe = load_recipe(name, "fit", FitRecipe, {"stage": stage})
    vae, epochs = recipe.model.vae is not None, {"artifact": 20, "fusion": 1}.get(stage or "", 10)
    assert (recipe.batch_size, recipe.stage, recipe.schedule.epochs) == (32, stage, epochs)
    assert recipe.optimizer.learning_rate == (0.1 if stage == "fusion" else 1e-4)
    assert recipe.optimizer.weight_decay == 0
    if vae:
        assert (recipe.schedule.name, recipe.schedule.final_rate) == ("cosine", recipe.optimizer.learning_rate / epochs)
    else:
        assert (recipe.schedule.name, recipe.schedule.milestones) == ("multistep", (11, 21))
    assert recipe.objective.interpolation == (0.5 if vae and stage == "semantic" else 0)
    assert recipe.model.end_to_end == (stage is None)
    views = recipe.augmentation
    sides = {"artifact": 256} if vae else dict.fromkeys((None, "semantic", "artifact", "fusion"), 256)
    blurred = stage in ("semantic", "fusion")
    assert (views.shorter_side, views.blur) == (sides.get(stage, 384), 0.5 if blurred else 0)
    assert (views.jpeg, views.degrade) == (0.5 if vae or blurred else 0, "image" if vae and not blurred else "resized")
    assert views.jpeg_quality == ((70, 95) if vae and not blurred else (30, 100))
    assert (recipe.beside is None) == (stage != "fusion")
    if recipe.beside:
        assert (recipe.beside.shorter_side, recipe.beside.blur, recipe.beside.jpeg) == (256, 0, 0.5 if vae else 0)


def test_keys_of_a_stage_go_over_the_others_and_below_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    stages = "{one: {batch_size: 5, optimizer: {eps: 1}}}"
    path.write_text(f"fit: {{batch_size: 3, seed: 4, optimizer: {{clip: 2.0}}, stages: {stages}}}")
    for overrides, expected in (
        ({}, (3, 4, 2.0, 1e-8)),
        ({"stage": "one"}, (5, 4, 2.0, 1.0)),
        ({"stage": "other"}, (3, 4, 2.0, 1e-8)),
        ({"stage": "one", "batch_size": 6}, (6, 4, 2.0, 1.0)),
    ):
        recipe = load_recipe(path, "fit", FitRecipe, overrides)
        assert (recipe.batch_size, recipe.seed, recipe.optimizer.clip, recipe.optimizer.eps) == expected
    for content in ("fit: {stages: 3}", "fit: {stage: one, stages: {one: 3}}"):
        path.write_text(content)
        with pytest.raises(RecipeError, match="`stages` of a recipe holds the keys of each stage"):
            load_recipe(path, "fit", FitRecipe)
