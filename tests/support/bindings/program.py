"""Source texts as functions and classes, whose variables the inference gives types."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Type(NamedTuple):
    """:param kind: module, class, object or method of TensorRT; our class, our object, function, bound method, or
    partial call of one; list, tuple

    :param items: types of what a list or each place of a tuple holds; of a partial call, its function and arguments
    """

    kind: str
    name: str = ""
    items: tuple["Types", ...] = ()


Types = frozenset[Type]
NONE: Types = frozenset()
MODULE_TYPE: Types = frozenset({Type("module")})
OBJECT = "our object"
OURS = (OBJECT, "our class")


def union(types: Iterable[Types]) -> Types:
    return NONE.union(*types)


def list_of(types: Types) -> Types:
    return frozenset({Type("list", items=(types,))}) if types else NONE


def tuples(items: tuple[Types, ...]) -> Types:
    """A list of tuples."""
    return list_of(frozenset({Type("tuple", items=items)})) if any(items) else NONE


def elements(types: Iterable[Type]) -> Types:
    return union(held for one in types for held in one.items)


def item(of: Type, index: int | None) -> Types:
    """What lies at an index of a tuple; whatever a list holds."""
    if of.kind == "tuple" and index is not None:
        return of.items[index] if -len(of.items) <= index < len(of.items) else NONE
    return elements({of}) if of.kind in ("list", "tuple") else NONE


@dataclass(eq=False)
class Function:
    """A function, or the code of a module.

    :param scopes: names of the scopes in which its variables are looked up, its own first
    :param owner: our class that it is a method of
    :param rtx: whether it is for TensorRT for RTX alone, which it, its class or its module has in its name
    """

    node: Any
    file: str
    scopes: tuple[str, ...]
    owner: str = ""
    rtx: bool = False

    @property
    def name(self) -> str:
        return self.scopes[0]

    @property
    def decorators(self) -> set[str]:
        return {ast.unparse(one).split(".")[-1] for one in getattr(self.node, "decorator_list", ())}

    @property
    def parameters(self) -> list[ast.arg]:
        if not hasattr(self.node, "args"):
            return []
        arguments = self.node.args
        return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]

    @property
    def itself(self) -> Types:
        """The type of `self` or `cls`."""
        if not self.owner or "staticmethod" in self.decorators:
            return NONE
        return frozenset({Type("our class" if "classmethod" in self.decorators else "our object", self.owner)})


@dataclass
class Class:
    """A class of ours.

    :param function: where it is defined
    :param bases: types of what it derives from
    """

    node: ast.ClassDef
    function: Function
    methods: dict[str, Function] = field(default_factory=dict)
    bases: Types = NONE

    @property
    def fields(self) -> list[str]:
        """Names with an annotation, in their order, which is that of a dataclass' constructor."""
        targets = (one.target for one in self.node.body if isinstance(one, ast.AnnAssign))
        return [one.id for one in targets if isinstance(one, ast.Name)]


class Program:
    """Our sources.

    :ivar named: functions and methods by their name
    :ivar imported: file → names that imports bind there
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        """:param sources: file → text"""
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        self.named: dict[str, list[Function]] = defaultdict(list)
        self.imported: dict[str, set[str]] = {}
        for file, text in sources.items():
            module = Function(ast.parse(text), file, (file,), rtx="rtx" in Path(file).stem.lower())
            self.functions[file] = module
            imports = (node for node in ast.walk(module.node) if isinstance(node, ast.Import | ast.ImportFrom))
            self.imported[file] = {alias.asname or alias.name for one in imports for alias in one.names}
            self._collect(module.node.body, module)

    def functions_of(self, name: str, file: str) -> list[Function]:
        """Of this file, or else of those that it is imported from."""
        found = [one for one in self.named.get(name, ()) if not one.owner]
        here = [one for one in found if one.file == file]
        return here or [one for one in found if name in self.imported[file]]

    def _collect(self, body: Sequence[ast.AST], outer: Function, owner: str = "") -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                self._collect(node.body, self._add_function(node, outer, owner))
            elif isinstance(node, ast.ClassDef):
                self.classes[node.name] = Class(node, outer)
                inner = Function(node, outer.file, outer.scopes, rtx=outer.rtx or "rtx" in node.name.lower())
                self._collect(node.body, inner, node.name)
            else:
                self._collect([one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt)], outer, owner)

    def _add_function(self, node: ast.FunctionDef, outer: Function, owner: str) -> Function:
        scope = f"{outer.name}:{owner and owner + '.'}{node.name}"
        function = Function(node, outer.file, (scope, *outer.scopes), owner, outer.rtx or "rtx" in node.name.lower())
        self.functions[scope] = function
        self.named[node.name].append(function)
        if owner:
            self.classes[owner].methods[node.name] = function
        return function
