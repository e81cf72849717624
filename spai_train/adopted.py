"""The recipe of a fit, with dimensions that the user has not chosen taken from the pre-training that it loads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spai_train.detectors import DEFAULT, DETECTORS, find
from spai_train.fit import FitRecipe
from spai_train.recipe import chosen_keys, load_recipe, read_section
from spai_train.training.start import training_of


@dataclass(frozen=True)
class Adopted:
    """:param chosen: dotted keys that the user has chosen
    :param notes: lines about what was taken from elsewhere
    """

    recipe: FitRecipe
    chosen: frozenset[str]
    notes: tuple[str, ...] = ()


def load_fit(recipe: str | Path, overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Adopted:
    """The section `fit` of a recipe, with the dimensions of the file `pretrained` where it can tell them and the user
    has chosen none.

    :param defaults: see `load_recipe`
    :raises UserError: the recipe cannot be followed, or the file cannot be read
    """
    chosen = chosen_keys(recipe, "fit", overrides)
    values = read_section(recipe, "fit", overrides)
    taken = _taken(values, chosen)
    if not taken:
        return Adopted(load_recipe(recipe, "fit", FitRecipe, overrides, defaults), chosen)
    kept = {key: value for key, value in values.get("model", {}).items() if f"model.{key}" in chosen}
    model = {f"model.{key}": value for key, value in {**taken, **kept}.items()}
    named = ", ".join(f"{key} {value:g}" for key, value in taken.items())
    note = f"the model has the dimensions of {values['pretrained']}: {named}"
    return Adopted(load_recipe(recipe, "fit", FitRecipe, {**overrides, **model}, defaults), chosen, (note,))


def _taken(values: Mapping[str, Any], chosen: Collection[str]) -> dict[str, Any]:
    """The loaded backbone's dimensions that differ from the recipe's, where nobody has chosen them.

    :param values: the recipe's values, whose types have not been checked
    """
    name, pretrained, model = values.get("detector", DEFAULT), values.get("pretrained"), values.get("model", {})
    if not (isinstance(name, str) and isinstance(pretrained, str) and isinstance(model, dict)):
        return {}
    if name not in DETECTORS or values.get("start"):
        return {}
    spec = find(name)
    before = {**vars(spec.config()), **model}
    found = training_of(spec).dimensions_of(model, pretrained)
    return {key: value for key, value in found.items() if f"model.{key}" not in chosen and before[key] != value}
