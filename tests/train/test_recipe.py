"""Recipes: sections, overrides, and what is wrong with them in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest

from spai_train.fit import FitRecipe
from spai_train.pretrain import PretrainRecipe
from spai_train.recipe import (
    RecipeError,
    differing_keys,
    dump_recipe,
    find_recipe,
    load_recipe,
    parse_assignments,
)


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
