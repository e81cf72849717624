"""TOML files that come with this package: benchmarks and published tables."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from spai_runtime.errors import UserError
from spai_runtime.text import meant

Kind = TypeVar("Kind")


def names_in(folder: Path) -> tuple[str, ...]:
    """The names of the TOML files in a folder of this package."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def read_data(folder: Path, name: str, what: str, kind: type[Kind]) -> Kind:
    """Reads a file in a folder of this package.

    :param what: what a file in that folder is, for the error
    :param kind: the dataclass that it becomes
    :raises UserError: there is none of that name
    """
    names = names_in(folder)
    if name not in names:
        raise UserError(f"there is no {what} {name}{meant(name, names)}: there are {', '.join(names)}")
    return msgspec.convert(tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")), kind)
