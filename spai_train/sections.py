"""The values of a recipe's section before a dataclass is made of them: nested mappings, and dotted keys into them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from spai_runtime.errors import UserError

# In the metadata of a dataclass's field: the names of the fields beside it whose values its own follows from where it
# is left out. An override of one of those takes what a recipe says of it out, unless it is overridden too.
FOLLOWS = "follows"


class RecipeError(UserError):
    """A recipe that cannot be followed, and why, in one sentence."""


def staged(section: Any, overrides: Mapping[str, Any]) -> Any:
    """A section with the keys of its stage in it."""
    if not isinstance(section, dict) or "stages" not in section:
        return section
    stages = section.pop("stages")
    stage = overrides.get("stage", section.get("stage"))
    keys = stages.get(stage, {}) if isinstance(stages, dict) else None
    if not isinstance(keys, dict):
        raise RecipeError("`stages` of a recipe holds the keys of each stage: {NAME: {KEY: VALUE}}")
    return _over(section, keys)


def merged(section: Any, overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """A section with other values, and values for what it leaves out; msgspec will refuse what is no section."""
    if not isinstance(section, dict):
        return section
    for key, value in defaults.items():
        values, name = _holder(section, key)
        values.setdefault(name, value)
    for key, value in overrides.items():
        values, name = _holder(section, key)
        values[name] = value
    return section


def dotted(values: Any, prefix: str = "") -> Iterator[str]:
    """The dotted key of a value, or the dotted keys of all values that a mapping holds."""
    if not isinstance(values, Mapping):
        yield prefix
        return
    for key, value in values.items():
        yield from dotted(value, f"{prefix}.{key}" if prefix else str(key))


def value_of(values: Any, key: str) -> Any:
    """The value of a dotted key; None where it has none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def forget_followers(
    values: Any, kind: type, changed: Collection[str], overrides: Mapping[str, Any], prefix: str = ""
) -> None:
    """Removes a recipe's value of a key that follows from an overridden key, unless overrides give it too."""
    if not isinstance(values, dict):
        return
    types = get_type_hints(kind)
    for key in fields(kind):
        if is_dataclass(types[key.name]):
            forget_followers(values.get(key.name), types[key.name], changed, overrides, f"{prefix}{key.name}.")
        leaders = {prefix + leader for leader in key.metadata.get(FOLLOWS, ())}
        if not leaders.isdisjoint(changed) and prefix + key.name not in overrides:
            values.pop(key.name, None)


def refuse_unknown(content: Any, kind: type, where: str) -> None:
    """Refuses unknown keys: a misspelt key would otherwise silently keep its default."""
    if not isinstance(content, Mapping):
        return  # msgspec says what was expected
    types = get_type_hints(kind)
    for name, value in content.items():
        if name not in types:
            raise RecipeError(f"{where} has no key `{name}`; it has {', '.join(types)}")
        if is_dataclass(types[name]):
            refuse_unknown(value, types[name], f"`{name}` in {where}")


def _over(values: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values with others put over them, level by level."""
    both = values.keys() & others.keys()
    nested = {key for key in both if isinstance(values[key], dict) and isinstance(others[key], dict)}
    return {**values, **others, **{key: _over(values[key], others[key]) for key in nested}}


def _holder(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key's name in it."""
    *path, name = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{key} is no key of a recipe: {part} has no keys below it")
    return values, name
