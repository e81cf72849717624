"""The reference of all recipe keys, docs/recipes.md: `python -m spai_train.reference docs/recipes.md` writes it.

Types and defaults come from the dataclasses that recipes are read into, and sentences from their docstrings.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect as schema

from spai_train.data.augmentation import Augmentation
from spai_train.detectors import every
from spai_train.fit import FitRecipe
from spai_train.pretrain import PretrainRecipe
from spai_train.recipe import find_recipe, load_recipe, read_yaml, shipped
from spai_train.simulation.folder import Simulation

SECTIONS: Mapping[str, type[Any]] = {"simulate": Simulation, "pretrain": PretrainRecipe, "fit": FitRecipe}
MODEL = "see below"  # kind of the key `model`, whose own keys are those of a detector
REQUIRED = "required"
LONGEST = 60  # characters of a value in a table
_SIMPLE: Mapping[type[schema.Type], str] = {
    schema.IntType: "integer",
    schema.FloatType: "number",
    schema.BoolType: "true or false",
    schema.StrType: "text",
    schema.NoneType: "null",
}

HEAD = """\
# The keys of a recipe

A recipe is a YAML file with a section for each command that reads it: `simulate`, `pretrain` and `fit`, whose section
`search` and `augment` read too. `--recipe` names a file, or one of the recipes that ship:
{names}.
A file of yours holds what differs from the defaults. `--set KEY=VALUE` goes over it, with dots between the levels, as
in `--set optimizer.learning_rate=1e-4`. A run's `recipe.yaml` shows every key as it was followed.

A default counts where a section says something of the same group of keys, and leaves this key out. Where `pretrain`
says nothing at all of `augmentation`, that of the recipe `spai` counts.

A section may also have the key `stages`, as in `stages: {{NAME: {{KEY: VALUE}}}}`. It holds what differs in a stage of
the training, and `--stage` names the stage.

`python -m spai_train.reference docs/recipes.md` writes this page, from the code and from
[the shipped recipes](../spai_train/recipes). Their values are shown as they are without a stage. Where a value is too
long for the table, it says "(long)": look into the recipe.
"""


@dataclass(frozen=True)
class Key:
    """One key of a section.

    :param name: the key's name, with dots between the levels
    :param kind: what the value may be, in words
    :param default: the value that counts where a recipe says none, or `required`
    :param meaning: one sentence
    """

    name: str
    kind: str
    default: str
    meaning: str


def reference() -> str:
    """The whole of docs/recipes.md."""
    parts = [HEAD.format(names=", ".join(f"`{name}`" for name in shipped()))]
    parts += [f"## {section}\n\n{_table(keys(kind), recipes_of(section))}" for section, kind in SECTIONS.items()]
    trained = [spec for spec in every() if spec.training]
    parts += [
        f"## model of {spec.name}\n\nThe section `fit` has these keys with `detector: {spec.name}`.\n\n"
        f"{_table(keys(spec.config, 'model.'), recipes_of('fit', spec.name))}"
        for spec in trained
    ]
    return "\n".join(parts)


def keys(kind: type[Any], prefix: str = "") -> list[Key]:
    """Every key that a dataclass of recipes has, with the keys of dataclasses inside it, but for those of `model`."""
    sentences, found = meanings(kind), []
    for field in _fields(kind):
        name, inside = field.encode_name, _inside(field)
        if inside is not None and name != "model":
            found += keys(inside, f"{prefix}{name}.")
        else:
            found.append(Key(prefix + name, _kind(field), _default(field), sentences.get(name, "")))
    return found


def meanings(kind: type[Any]) -> dict[str, str]:
    """The first sentence on each parameter, in the dataclass's docstring or in that of a base."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        for names, said in re.findall(r"^:param ([\w, ]+): (.*(?:\n    .*)*)", text, flags=re.MULTILINE):
            sentence = re.split(r"(?<=\.) (?=[A-Z`])", " ".join(said.split()))[0]
            found |= dict.fromkeys(names.split(", "), sentence)
    return found


def recipes_of(section: str, detector: str | None = None) -> dict[str, dict[str, str]]:
    """What shipped recipes say of a section's keys, by the recipe's name and the key's.

    :param detector: only recipes of this detector are wanted; None takes all
    """
    found = {}
    for name in shipped():
        if section not in read_yaml(find_recipe(name)):
            continue
        settings = load_recipe(name, section, SECTIONS[section])
        if detector is None or settings.detector == detector:
            found[name] = dict(_values(settings))
    return found


def _table(rows: list[Key], recipes: Mapping[str, Mapping[str, str]]) -> str:
    """A table with a row for each key; where recipes differ from the default, it has each value once."""
    lines = ["| key | value | default | shipped recipes that differ | what it does |", "|---|---|---|---|---|"]
    for key in rows:
        by_value: dict[str, list[str]] = {}
        for name, values in recipes.items():
            if key.kind != MODEL and (key.default == REQUIRED or _differ(values[key.name], key.default)):
                by_value.setdefault(values[key.name], []).append(name)
        others = "; ".join(f"{_shown(value)} in {', '.join(names)}" for value, names in by_value.items())
        default = "" if key.kind == MODEL else _shown(key.default)
        cells = (f"`{key.name}`", key.kind, default, others, key.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _differ(one: str, other: str) -> bool:
    """Whether two values differ; 16 and 16.0 do not."""
    return bool(yaml.safe_load(one) != yaml.safe_load(other))


def _shown(value: str) -> str:
    """A value as text for a cell."""
    if value == REQUIRED:
        return value
    return f"`{value}`" if len(value) <= LONGEST else "(long)"


def _values(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys on every level, with their values in YAML."""
    for name in (field.name for field in fields(settings)):
        value = getattr(settings, name)
        yield prefix + name, _yaml(value)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{name}.")


def _fields(kind: type[Any]) -> tuple[schema.Field, ...]:
    found = schema.type_info(kind)
    assert isinstance(found, schema.DataclassType)
    return found.fields


def _inside(field: schema.Field) -> type[Any] | None:
    """The dataclass whose keys stand in the place of a field."""
    return field.type.cls if isinstance(field.type, schema.DataclassType) else None


def _default(field: schema.Field) -> str:
    if field.default is not msgspec.NODEFAULT:
        return _yaml(field.default)
    return REQUIRED if field.required else _yaml(field.default_factory())


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    written = yaml.safe_dump(msgspec.to_builtins(value), default_flow_style=True, width=10_000, sort_keys=False)
    return written.removesuffix("\n").removesuffix("\n...")


def _kind(field: schema.Field) -> str:
    """What the value of a field may be."""
    return MODEL if field.encode_name == "model" else _words(field.type)


def _words(kind: schema.Type) -> str:
    """What a value may be."""
    match kind:
        case schema.UnionType():
            words = " or ".join(_words(part) for part in kind.types)
        case schema.LiteralType():
            words = ", ".join(f"`{value}`" for value in kind.values)
        case schema.IntType() | schema.FloatType():
            words = f"{_SIMPLE[type(kind)]}{_range(kind)}"
        case schema.TupleType():
            words = f"list of {len(kind.item_types)}: {_words(kind.item_types[0])}"
        case schema.VarTupleType():
            words = f"list: {_words(kind.item_type)}"
        case schema.DictType():
            words = f"for each name: {_words(kind.value_type)}"
        case schema.DataclassType():
            names = ", ".join(f"`{field.encode_name}`" for field in kind.fields)
            words = "keys as in `augmentation`" if kind.cls is Augmentation else f"keys {names}"
        case _:
            words = _SIMPLE[type(kind)]
    return words


def _range(kind: schema.IntType | schema.FloatType) -> str:
    """The limits of a number, behind its type."""
    limits = (("from", kind.ge), ("above", kind.gt), ("to", kind.le), ("below", kind.lt))
    return "".join(f" {word} {limit:g}" for word, limit in limits if limit is not None)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
