"""The names and signatures of one TensorRT, and whether a use of them fits."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODULE = ""  # what owns the names of the module itself
CONSTRUCTOR = "__init__"
LIST = re.compile(r"^[Ll]ist\[(.*)\]$")


@dataclass(frozen=True)
class Signature:
    """:param parameters: name, type and whether it has a default, without `self`"""

    parameters: Sequence[tuple[str, str, bool]]
    returns: str


@dataclass(frozen=True)
class Arguments:
    """Those of a call. :param types: the classes of TensorRT that each may have, by its position or keyword"""

    positional: int
    keywords: frozenset[str] = frozenset()
    starred: bool = False
    types: tuple[tuple[int | str, frozenset[str]], ...] = ()


@dataclass(frozen=True)
class Use:
    """A name of TensorRT in our code: `owner.name`, which is read, set, called or overridden.

    :param place: file and line
    :param owner: a class, or MODULE
    :param instance: whether an object of the class has it, and not the class itself
    :param rtx: whether the code is for TensorRT for RTX alone
    """

    place: str
    owner: str
    name: str
    how: str = "read"
    instance: bool = True
    arguments: Arguments | None = None
    rtx: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {f'{self.owner}.' if self.owner else ''}{self.name}"


@dataclass(frozen=True)
class Api:
    """What `dump.py` found in a module."""

    version: str
    names: frozenset[str]
    classes: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, text: str) -> "Api":
        """:param text: JSON"""
        read = json.loads(text)
        return cls(read["version"], frozenset(read["names"]), read["classes"])

    def constants(self, owner: str) -> Mapping[str, str]:
        """Names that a class itself has, such as the members of an enum → type."""
        return self.classes[owner]["constants"] if owner in self.classes else {}

    def property_type(self, owner: str, name: str) -> str | None:
        found = self._properties(owner).get(name)
        return found and found["type"]

    def signatures(self, owner: str, name: str) -> list[Signature] | None:
        """Of each overload; None: there is no such method. A static method has no `self`."""
        found = self.classes[owner]["methods"].get(name) if owner in self.classes else None
        if found is None:
            return None
        return [
            Signature([(*parameter,) for parameter in one["parameters"] if parameter[0] != "self"], one["returns"])
            for one in found
        ]

    def is_a(self, kind: str, other: str) -> bool:
        """Whether a class is another, or derives from it."""
        return kind == other or other in self.classes[kind]["bases"]

    def misfit(self, use: Use) -> str | None:
        """What is wrong with a use; None: nothing."""
        problem = self._problem(use)
        return f"{use}: {problem} in {self.version}" if problem else None

    def _problem(self, use: Use) -> str | None:
        if use.owner == MODULE:
            return None if use.name in self.names else "no such name"
        if use.owner not in self.classes or not self._has(use):
            return "no such name"
        if use.how == "set" and not self._properties(use.owner).get(use.name, {}).get("settable"):
            return "cannot be set"
        return self._call_problem(use, use.arguments) if use.arguments else None

    def _call_problem(self, use: Use, arguments: Arguments) -> str | None:
        """None if one of the overloads takes the arguments."""
        misfits = [self._misfit(one, arguments) for one in self.signatures(use.owner, use.name) or ()]
        if not misfits:
            return "cannot be called"
        return None if None in misfits else "; ".join(str(one) for one in misfits)

    def _has(self, use: Use) -> bool:
        class_ = self.classes[use.owner]
        known = {*class_["methods"], *class_["constants"], *(self._properties(use.owner) if use.instance else ())}
        return use.name in known or f"{use.owner}.{use.name}" in self.classes

    def _properties(self, owner: str) -> Mapping[str, Any]:
        return self.classes[owner]["properties"] if owner in self.classes else {}

    def _misfit(self, signature: Signature, arguments: Arguments) -> str | None:
        """Why Python or pybind11 refuses a call."""
        names = [name for name, _, _ in signature.parameters]
        if arguments.positional > len(names):
            return f"takes {len(names)} arguments, not {arguments.positional}"
        unknown = arguments.keywords - set(names[arguments.positional :])
        if unknown:
            return f"takes no {', '.join(sorted(unknown))}"
        rest = signature.parameters[arguments.positional :]
        missing = [name for name, _, default in rest if not default and name not in arguments.keywords]
        if missing and not arguments.starred:
            return f"lacks {', '.join(missing)}"
        return next(self._wrong_types(signature, arguments), None)

    def _wrong_types(self, signature: Signature, arguments: Arguments) -> Iterator[str]:
        wanted: dict[int | str, str] = {name: kind for name, kind, _ in signature.parameters}
        wanted |= {index: kind for index, (_, kind, _) in enumerate(signature.parameters)}
        for place, types in arguments.types:
            kind = wanted.get(place, "")
            if kind in self.classes and types and not any(self.is_a(one, kind) for one in types if one in self.classes):
                yield f"wants {kind}, not {' or '.join(sorted(types))}"
