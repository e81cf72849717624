"""Recipes: YAML files with a section for each command, and `key=value` overrides over them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec
import yaml

from spai_runtime.errors import UserError
from spai_train.sections import RecipeError, dotted, forget_followers, merged, refuse_unknown, staged, value_of

FOLDER = Path(__file__).parent / "recipes"
Section = TypeVar("Section")


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
    """Loads one section of a recipe as a frozen dataclass, whose defaults fill in what the section leaves out.

    A section may hold what is different in a stage of the training, `stages: {NAME: {KEY: VALUE}}`, whose keys count
    where the key `stage` names it.

    :param recipe: a YAML file, or the name of one that ships: `spai`, `demo`
    :param overrides: dotted key → value, e.g. {"optimizer.learning_rate": 1e-4}
    :param defaults: dotted key → value, in place of the dataclass's defaults
    :raises RecipeError: it is unreadable, not YAML or without the section, or a key is unknown, missing or of another
        type
    """
    path, overrides = find_recipe(recipe), overrides or {}
    values = staged(_section(path, section), overrides)
    changed = {key for key, value in overrides.items() if value_of(values, key) != value}
    values = merged(values, overrides, defaults or {})
    typed: type = kind.typed(values) if isinstance(kind, Varying) else kind
    forget_followers(values, typed, changed, overrides)
    refuse_unknown(values, typed, f"the section `{section}` of {path}")
    try:
        found: Any = msgspec.convert(values, typed, strict=False)  # YAML 1.1 reads 5e-4 as a string
    except msgspec.ValidationError as error:
        raise RecipeError(f"{path} is not a recipe: {section}: {error}") from error
    return found if typed is kind else kind(**vars(found))


def shipped() -> Sequence[str]:
    """The names of the recipes that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """:raises RecipeError: it is neither a file nor the name of a recipe that ships"""
    path, ours = Path(recipe), FOLDER / f"{recipe}.yaml"
    if path.is_file() or not ours.is_file():
        if not path.exists():
            names = ", ".join(shipped())
            raise RecipeError(f"there is no recipe {recipe}; give a YAML file or one of: {names}")
        return path
    return ours


def chosen_keys(recipe: str | Path, section: str, overrides: Mapping[str, Any]) -> frozenset[str]:
    """The dotted keys that the user has chosen: those of overrides and of a file of the user's, none of one that ships.

    :raises RecipeError: see `load_recipe`
    """
    path = find_recipe(recipe)
    own = {} if path.parent == FOLDER else staged(_section(path, section), overrides)
    return frozenset([*dotted(own), *(below for key, value in overrides.items() for below in dotted(value, key))])


def read_section(recipe: str | Path, section: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section with overrides over them; their types are not checked.

    :raises RecipeError: see `load_recipe`
    """
    values = merged(staged(_section(find_recipe(recipe), section), overrides), overrides, {})
    return values if isinstance(values, dict) else {}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` of the command line → overrides; a value is YAML.

    :raises RecipeError: an assignment has no `=`, or its value is not YAML
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
    """Writes a section with every key, as YAML that load_recipe reads."""
    return yaml.safe_dump({section: msgspec.to_builtins(asdict(settings))}, sort_keys=False)


def differing_keys(one: Any, other: Any, prefix: str = "") -> list[str]:
    """The dotted keys in which two settings of one kind differ."""
    keys = []
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(mine) and type(mine) is type(theirs):
            keys += differing_keys(mine, theirs, f"{prefix}{field.name}.")
        elif mine != theirs:
            keys.append(prefix + field.name)
    return keys


def flatten(settings: Any, prefix: str = "") -> dict[str, int | float | str | bool]:
    """The settings as dotted keys → values that trackers of experiments can show; what is no number becomes text."""
    values: dict[str, int | float | str | bool] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            values |= flatten(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = value if isinstance(value, int | float | str) else str(value)
    return values


def read_yaml(path: Path, failure: type[UserError] = RecipeError) -> Any:
    """:raises UserError: an error of the kind `failure`: it cannot be read or is not YAML"""
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
