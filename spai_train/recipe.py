"""Recipes: YAML files with a section for each command, and `key=value` overrides over them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints, runtime_checkable

import msgspec
import yaml

from spai_runtime.errors import UserError

FOLDER = Path(__file__).parent / "recipes"
Section = TypeVar("Section")

# In the metadata of a dataclass's field: the names of the fields beside it whose values its own follows from where it
# is left out. An override of one of those takes what a recipe says of it out, unless it is overridden too.
FOLLOWS = "follows"


class RecipeError(UserError):
    """A recipe that cannot be followed, and why, in one sentence."""


@runtime_checkable
class Varying(Protocol):
    """A kind of section whose keys depend on the value of one of them."""

    def typed(self, values: Mapping[str, Any]) -> type:
        """:returns: a dataclass with the fields of this kind and the types that they have for these values"""


def load_recipe(
    recipe: str | Path,
    section: str,
    kind: type[Section],
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Section:
    """One section of a recipe, as a frozen dataclass whose defaults fill in what it leaves out.

    A section may hold what is different in a stage of the training, `stages: {NAME: {KEY: VALUE}}`, whose keys count
    where the key `stage` names it.

    :param recipe: a YAML file, or the name of one that ships: `spai`, `demo`
    :param overrides: dotted key → value, e.g. {"optimizer.learning_rate": 1e-4}
    :param defaults: the same, in place of the dataclass's
    :raises RecipeError: unreadable, not YAML, without the section, or a key that is unknown, missing or of another type
    """
    path, overrides = find_recipe(recipe), overrides or {}
    values = _staged(_section(path, section), overrides)
    changed = {key for key, value in overrides.items() if _value(values, key) != value}
    values = _merged(values, overrides, defaults or {})
    typed: type = kind.typed(values) if isinstance(kind, Varying) else kind
    _forget_followers(values, typed, changed, overrides)
    _refuse_unknown(values, typed, f"the section `{section}` of {path}")
    try:
        found: Any = msgspec.convert(values, typed, strict=False)  # YAML 1.1 reads 5e-4 as a string
    except msgspec.ValidationError as error:
        raise RecipeError(f"{path} is not a recipe: {section}: {error}") from error
    return found if typed is kind else kind(**vars(found))


def shipped() -> Sequence[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """:raises RecipeError: neither a file nor the name of a recipe that ships"""
    path, ours = Path(recipe), FOLDER / f"{recipe}.yaml"
    if path.is_file() or not ours.is_file():
        if not path.exists():
            names = ", ".join(shipped())
            raise RecipeError(f"there is no recipe {recipe}; give a YAML file or one of: {names}")
        return path
    return ours


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` of the command line → overrides; a value is YAML.

    :raises RecipeError: without `=`, or a value that is not YAML
    """
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {assignment} is not key=value, e.g. --set optimizer.learning_rate=1e-4")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {assignment}: the value is not YAML") from error
    return overrides


def dump_recipe(section: str, settings: Any) -> str:
    """A section with every key, as YAML that load_recipe reads."""
    return yaml.safe_dump({section: msgspec.to_builtins(asdict(settings))}, sort_keys=False)


def differing_keys(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two settings of one kind differ."""
    keys = []
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(mine) and type(mine) is type(theirs):
            keys += differing_keys(mine, theirs, f"{prefix}{field.name}.")
        elif mine != theirs:
            keys.append(prefix + field.name)
    return keys


def flatten(settings: Any, prefix: str = "") -> dict[str, int | float | str | bool]:
    """Dotted keys → values that trackers of experiments can show; what is no number is text."""
    values: dict[str, int | float | str | bool] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            values |= flatten(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = value if isinstance(value, int | float | str) else str(value)
    return values


def read_yaml(path: Path, failure: type[UserError] = RecipeError) -> Any:
    """:raises UserError: of the kind `failure`, where it cannot be read or is not YAML"""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise failure(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise failure(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(value, dict | None) for value in content.values()):
        raise RecipeError(f"{path} is not a recipe: it must hold sections such as `fit:` and `pretrain:`")
    return content


def _section(path: Path, section: str) -> Any:
    content = _read(path)
    if section not in content:
        raise RecipeError(f"{path} has no section `{section}`; it has: {', '.join(content) or 'none'}")
    return content[section] or {}


def _value(values: Any, key: str) -> Any:
    """What a dotted key has; None where it has nothing."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _forget_followers(
    values: Any, kind: type, changed: Collection[str], overrides: Mapping[str, Any], prefix: str = ""
) -> None:
    """Takes out what a recipe says of a key that follows from one that was changed over it, and was not given too."""
    if not isinstance(values, dict):
        return
    types = get_type_hints(kind)
    for key in fields(kind):
        if is_dataclass(types[key.name]):
            _forget_followers(values.get(key.name), types[key.name], changed, overrides, f"{prefix}{key.name}.")
        leaders = {prefix + leader for leader in key.metadata.get(FOLLOWS, ())}
        if not leaders.isdisjoint(changed) and prefix + key.name not in overrides:
            values.pop(key.name, None)


def _staged(section: Any, overrides: Mapping[str, Any]) -> Any:
    """A section with the keys of its stage in it."""
    if not isinstance(section, dict) or "stages" not in section:
        return section
    stages = section.pop("stages")
    stage = overrides.get("stage", section.get("stage"))
    keys = stages.get(stage, {}) if isinstance(stages, dict) else None
    if not isinstance(keys, dict):
        raise RecipeError("`stages` of a recipe holds the keys of each stage: {NAME: {KEY: VALUE}}")
    return _over(section, keys)


def _over(values: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others over them, level by level."""
    both = values.keys() & others.keys()
    nested = {key for key in both if isinstance(values[key], dict) and isinstance(others[key], dict)}
    return {**values, **others, **{key: _over(values[key], others[key]) for key in nested}}


def _merged(section: Any, overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """A section with other values, and with values for what it leaves out; what is none msgspec will refuse."""
    if not isinstance(section, dict):
        return section
    for key, value in defaults.items():
        values, name = _holder(section, key)
        values.setdefault(name, value)
    for key, value in overrides.items():
        values, name = _holder(section, key)
        values[name] = value
    return section


def _holder(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """What a dotted key is in, and its name there."""
    *path, name = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{key} is no key of a recipe: {part} has no keys below it")
    return values, name


def _refuse_unknown(content: Any, kind: type, where: str) -> None:
    """A key that is misspelt would be left at its default, silently."""
    if not isinstance(content, Mapping):
        return  # msgspec says what was expected
    types = get_type_hints(kind)
    for name, value in content.items():
        if name not in types:
            raise RecipeError(f"{where} has no key `{name}`; it has {', '.join(types)}")
        if is_dataclass(types[name]):
            _refuse_unknown(value, types[name], f"`{name}` in {where}")
