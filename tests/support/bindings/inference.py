"""Which names of TensorRT a program uses, and of which classes: found without running it.

TensorRT's objects are `Any` to the type checker, since its module is not there where types are checked. What the
bindings' docstrings say of return types tells their classes all the same: `trt` is the module, `trt.Builder(log)` a
Builder, `builder.create_network()` an INetworkDefinition, wherever functions, attributes and containers carry it. Flow
and branches are ignored: a variable has every type that is ever assigned to it.
"""

import ast
from collections.abc import Sequence

from tests.support.bindings.api import Api, Arguments
from tests.support.bindings.expressions import Expressions
from tests.support.bindings.program import (
    MODULE_TYPE,
    NONE,
    Class,
    Function,
    Program,
    Type,
    Types,
    elements,
    list_of,
    union,
)

ROUNDS = 8  # a type travels one call further in each


class Inference(Expressions):
    """Runs over a program until no variable gains a type, then notes what is used: see `Notes`."""

    def __init__(self, program: Program, apis: Sequence[Api]) -> None:
        super().__init__(program, apis)
        before: object = None
        for _ in range(ROUNDS):
            self._round()
            after = dict(self._variables), dict(self._returns)
            if before == after:
                break
            before = after
        self.uses.clear()
        self.lost.clear()
        self._round()

    def untyped(self) -> set[str]:
        """Parameters of any type, in the files that use TensorRT, that are given no object of it: `function(name)`."""
        files = {use.place.rpartition(":")[0] for use in self.uses}
        return {
            f"{function.name.rpartition(':')[2]}({one.arg})"
            for function in self.program.functions.values()
            for one in function.parameters
            if function.file in files and one.annotation is not None and ast.unparse(one.annotation) == "Any"
            if one.arg != "trt" and not self._variables.get((function.name, one.arg))
        }

    def _round(self) -> None:
        for one in self.program.classes.values():
            self._at = one.function
            one.bases = union(self.eval(base) for base in one.node.bases)
            for name in one.fields:
                self._own.add((one.node.name, name))
            self._follow_overrides(one)
        for function in self.program.functions.values():
            self._at = function
            self._declare(function)
            for statement in function.node.body:
                self.run(statement)

    def _declare(self, function: Function) -> None:
        for parameter in function.parameters:
            self._add(function.name, parameter.arg, self._annotated(parameter.annotation))
        if function.itself:
            self._add(function.name, function.parameters[0].arg, function.itself)
        if isinstance(function.node, ast.FunctionDef):
            self._returns[function.name] |= self._annotated(function.node.returns)

    def _annotated(self, node: ast.expr | None) -> Types:
        """Our classes in an annotation; in a container, as its elements."""
        match node:
            case ast.Constant(value=str(text)):
                return self._annotated(ast.parse(text, mode="eval").body)
            case ast.Name(id=name) if name in self.program.classes:
                return frozenset({Type("our object", name)})
            case ast.BinOp(left=left, right=right):
                return self._annotated(left) | self._annotated(right)
            case ast.Subscript(slice=inner):
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return list_of(union(self._annotated(part) for part in parts))
        return NONE

    def _follow_overrides(self, one: Class) -> None:
        """A method that a class of TensorRT has too is called by it, with its arguments."""
        for base in one.bases:
            for method, function in one.methods.items():
                found = self._signatures(base.name, method) if base.kind == "class" else None
                if found and not method.startswith("_"):
                    _, *own = function.parameters
                    self._note(function.node, base.name, method, "override", Arguments(len(own)))
                    for parameter, (_, kind, _) in zip(own, found[0].parameters, strict=False):
                        self._add(function.name, parameter.arg, self._parsed(kind))

    # ---- statements, each by a method of its name

    def run(self, node: ast.AST) -> None:
        """Of a function that is defined inside, not the body: that is a function of its own."""
        if isinstance(node, ast.expr):
            self.eval(node)
            return
        known = getattr(self, f"_run_{type(node).__name__.lower()}", None)
        if known is not None:
            known(node)
            return
        for child in ast.iter_child_nodes(node):
            self.run(child)

    def _run_functiondef(self, node: ast.FunctionDef) -> None:
        for one in node.decorator_list:
            self.eval(one)

    def _run_classdef(self, node: ast.ClassDef) -> None:
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                self._add(node.name, one.target.id, self._annotated(one.annotation))

    def _run_assign(self, node: ast.Assign) -> None:
        types = self.eval(node.value)
        for target in node.targets:
            self._bind(target, types)

    def _run_annassign(self, node: ast.AnnAssign) -> None:
        self._bind(node.target, self._annotated(node.annotation) | self.eval(node.value))

    def _run_for(self, node: ast.For) -> None:
        self._bind(node.target, elements(self.eval(node.iter)))
        for one in (*node.body, *node.orelse):
            self.run(one)

    def _run_withitem(self, node: ast.withitem) -> None:
        types = self.eval(node.context_expr)
        if node.optional_vars is not None:
            self._bind(node.optional_vars, types)

    def _run_return(self, node: ast.Return) -> None:
        self._returns[self._at.name] |= self.eval(node.value)

    def _run_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.startswith("tensorrt"):
                self._add(self._at.name, alias.asname or alias.name, MODULE_TYPE)
