"""docs/recipes.md: what the generator says, of every key that a recipe may have."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from spai_train.detectors import find
from spai_train.fit import FitRecipe
from spai_train.recipe import FOLDER
from spai_train.reference import SECTIONS, keys, reference

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_is_what_the_generator_writes() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `python -m spai_train.reference docs/recipes.md`"


def names_of(kind: type, prefix: str = "") -> set[str]:
    """The dotted keys of a dataclass, as typing sees them."""
    found = set()
    for name, hint in get_type_hints(kind).items():
        found |= names_of(hint, f"{prefix}{name}.") if is_dataclass(hint) and name != "model" else {prefix + name}
    return found


@pytest.mark.parametrize("kind", [*SECTIONS.values(), find("spai").config, find("cospy").config])
def test_every_key_has_a_whole_sentence(kind: type) -> None:
    found = {key.name: key.meaning for key in keys(kind)}
    assert found.keys() == names_of(kind)
    assert len(found) >= len(fields(kind))
    poor = {name for name, said in found.items() if not (said.endswith(".") and said[0] in said[0].upper() + "`")}
    assert poor == set()
    assert all(len(said.split()) >= 4 for said in found.values())


def row(key: str, section: str) -> list[str]:
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_values_are_those_that_recipes_say() -> None:
    demo = yaml.safe_load((FOLDER / "demo.yaml").read_text("utf-8"))["fit"]
    default = FitRecipe().batch_size
    _, kind, shown, others, _ = row("batch_size", "fit")
    assert (kind, shown) == ("integer from 1", f"`{default}`")
    assert demo["batch_size"] != default
    (of_demo,) = [part for part in others.split("; ") if "demo" in part]
    assert of_demo.startswith(f"`{demo['batch_size']}` in ")
    assert row("seed", "simulate")[2] == "required"
    assert row("optimizer.clip", "pretrain")[1:3] == ["number above 0 or null", "`3.0`"]
    assert row("model.mask_radius", "model of spai")[3] == ""  # 16 and 16.0 are one
