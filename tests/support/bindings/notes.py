"""What the bindings say of TensorRT's classes, and where a program uses them."""

import ast
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.support.bindings.api import LIST, Api, Arguments, Signature, Use
from tests.support.bindings.program import NONE, Function, Program, Type, Types, list_of, union


class Notes:
    """Of one program.

    :param apis: the first that knows of a class says what its methods return
    :ivar uses: each name of TensorRT in the program
    :ivar lost: places where an object of TensorRT goes where it cannot be followed
    """

    _at: Function  # what is read now

    def __init__(self, program: Program, apis: Sequence[Api]) -> None:
        self.program, self.apis = program, apis
        self.uses: set[Use] = set()
        self.lost: set[str] = set()
        self._callers: dict[str, set[str]] = defaultdict(set)  # function → those that are known to call it

    def _is_class(self, name: str) -> bool:
        return any(name in api.classes for api in self.apis)

    def _signatures(self, owner: str, name: str) -> list[Signature] | None:
        return next((found for api in self.apis if (found := api.signatures(owner, name)) is not None), None)

    def _parsed(self, kind: str | None) -> Types:
        """`list[Dims]` → a list of them; a type that is none of TensorRT's → nothing."""
        inner = LIST.match(kind or "")
        if inner:
            return list_of(self._parsed(inner[1]))
        return frozenset({Type("object", kind)}) if kind and self._is_class(kind) else NONE

    def _rtx(self, name: str, below: frozenset[str] = frozenset()) -> bool:
        """Whether a function is for TensorRT for RTX alone: by its name, or since such functions alone call it."""
        callers = self._callers[name] - below
        by_name = name in self.program.functions and self.program.functions[name].rtx
        return by_name or (bool(callers) and all(self._rtx(one, below | {name}) for one in callers))

    def _place(self, node: ast.AST) -> str:
        return f"{self._at.file}:{getattr(node, 'lineno', 0)}"

    def _note(
        self, node: ast.AST, owner: str, name: str, how: str = "read", arguments: Arguments | None = None, *,
        instance: bool = True,
    ) -> None:  # fmt: skip
        self.uses.add(Use(self._place(node), owner, name, how, instance, arguments, self._rtx(self._at.name)))

    def _note_call(self, node: ast.Call, owner: str, name: str, given: list[Types], named: dict[Any, Types]) -> None:
        starred = any(isinstance(one, ast.Starred) for one in node.args) or None in named
        positional = len(given) - sum(isinstance(one, ast.Starred) for one in node.args)
        places: list[tuple[int | str, Types]] = [(key, types) for key, types in named.items() if key]
        if not starred:
            places += enumerate(given)
        kinds = tuple((place, found) for place, types in places if (found := self._kinds(types)))
        keywords = frozenset(key for key in named if key)
        self._note(node, owner, name, "call", Arguments(positional, keywords, starred, kinds))

    def _kinds(self, types: Types) -> frozenset[str]:
        """Classes of TensorRT that an argument may have; ours count as those that they derive from."""
        own = {one.name for one in types if one.kind == "object"}
        ours = {base.name for one in types if one.kind == "our object" for base in self.program.classes[one.name].bases}
        return frozenset(own | ours)

    def _lose(self, node: ast.Call, given: list[Types], named: dict[Any, Types]) -> None:
        if any(one.kind in ("module", "class", "object", "method") for one in union((*given, *named.values()))):
            self.lost.add(f"{self._place(node)}: {ast.unparse(node)}")
