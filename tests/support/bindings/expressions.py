"""The types of variables and expressions, as far as TensorRT's objects and our own are concerned."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.bindings.api import CONSTRUCTOR, MODULE, Api
from tests.support.bindings.notes import Notes
from tests.support.bindings.program import (
    MODULE_TYPE,
    NONE,
    OBJECT,
    OURS,
    Class,
    Function,
    Program,
    Type,
    Types,
    elements,
    item,
    list_of,
    tuples,
    union,
)

HARMLESS = {"bool", "bytes", "id", "int", "isinstance", "len", "memoryview", "print", "repr", "str"}
PASSING = {  # functions of Python that hand on what they get
    **dict.fromkeys(("iter", "list", "reversed", "set", "sorted", "tuple"), lambda *given: union(given[:1])),
    **dict.fromkeys(("max", "min", "next"), lambda *given: elements(union(given[:1]))),
    "enumerate": lambda *given: tuples((NONE, elements(union(given[:1])))),
    "zip": lambda *given: tuples(tuple(elements(one) for one in given)),
}
OPAQUE = {"", "list", "object", "tuple"}  # docstrings that do not say what is in it

# What they leave open and NVIDIA's documentation tells: the items of a tuple.
TUPLES = {("Runtime", "get_engine_validity"): ("EngineValidity", "int")}


class Expressions(Notes):
    """Evaluates one expression after another, and remembers what variables, attributes and returned values are."""

    def __init__(self, program: Program, apis: Sequence[Api]) -> None:
        super().__init__(program, apis)
        self._variables: dict[tuple[str, str], Types] = defaultdict(frozenset)  # (scope or class, name) → types
        self._returns: dict[str, Types] = defaultdict(frozenset)
        self._own: set[tuple[str, str]] = set()  # (our class, an attribute that our code gives it)

    def _add(self, scope: str, name: str, types: Types) -> None:
        if types:
            self._variables[scope, name] |= types

    def _bind(self, target: ast.expr, types: Types) -> None:
        match target:
            case ast.Name(id=name):
                self._add(self._at.name, name, types)
            case ast.Attribute(value=value, attr=name):
                for base in self.eval(value):
                    self._set(target, base, name, types)
            case ast.Subscript(value=value):  # of a list or dictionary
                self._bind(value, list_of(types))
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for index, one in enumerate(targets):
                    self._bind(one, union(item(types_, index) for types_ in types))

    def _set(self, node: ast.AST, base: Type, name: str, types: Types) -> None:
        if base.kind in OURS:
            self._own.add((base.name, name))
            self._add(base.name, name, types)
        elif base.kind in ("object", "class"):
            self._note(node, base.name, name, "set")

    # ---- expressions, each by a method of its name

    def eval(self, node: ast.expr | None) -> Types:
        """The types of an expression, whose uses are noted."""
        if node is None:
            return NONE
        known = getattr(self, f"_eval_{type(node).__name__.lower()}", None)
        if known is not None:
            return frozenset(known(node))
        for part in parts(node):
            self.eval(part)
        return NONE

    def _eval_name(self, node: ast.Name) -> Types:
        if node.id == "trt":
            return MODULE_TYPE
        if node.id in self.program.classes:
            return frozenset({Type("our class", node.id)})
        found = union(self._variables.get((scope, node.id), NONE) for scope in self._at.scopes)
        functions = self.program.functions_of(node.id, self._at.file)
        return found or frozenset(Type("function", one.name) for one in functions)

    def _eval_attribute(self, node: ast.Attribute) -> Types:
        bases = self.eval(node.value)
        if node.attr in ("trt", "_trt"):
            return MODULE_TYPE
        return union(self._member(node, base, node.attr) for base in bases)

    def _eval_tuple(self, node: ast.Tuple) -> Types:
        items = tuple(self.eval(part) for part in node.elts)
        return frozenset({Type("tuple", items=items)}) if any(items) else NONE

    def _eval_list(self, node: ast.List) -> Types:
        return list_of(union(self.eval(part) for part in node.elts))

    def _eval_dict(self, node: ast.Dict) -> Types:
        for key in node.keys:
            self.eval(key)
        return list_of(union(self.eval(value) for value in node.values))

    def _eval_subscript(self, node: ast.Subscript) -> Types:
        types = self.eval(node.value)
        self.eval(node.slice)
        if isinstance(node.slice, ast.Slice):
            return types
        at = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return union(item(one, at if isinstance(at, int) else None) for one in types)

    def _eval_ifexp(self, node: ast.IfExp) -> Types:
        self.eval(node.test)
        return self.eval(node.body) | self.eval(node.orelse)

    def _eval_boolop(self, node: ast.BoolOp) -> Types:
        return union(self.eval(value) for value in node.values)

    def _eval_namedexpr(self, node: ast.NamedExpr) -> Types:
        types = self.eval(node.value)
        self._bind(node.target, types)
        return types

    def _eval_starred(self, node: ast.Starred) -> Types:
        return self.eval(node.value)

    def _eval_listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Types:
        self._loop(node.generators)
        return list_of(self.eval(node.elt))

    _eval_setcomp = _eval_generatorexp = _eval_listcomp

    def _eval_dictcomp(self, node: ast.DictComp) -> Types:
        self._loop(node.generators)
        self.eval(node.key)
        return list_of(self.eval(node.value))

    def _loop(self, generators: Sequence[ast.comprehension]) -> None:
        for one in generators:
            self._bind(one.target, elements(self.eval(one.iter)))
            for test in one.ifs:
                self.eval(test)

    def _eval_yield(self, node: ast.Yield) -> Types:
        self._returns[self._at.name] |= list_of(self.eval(node.value))
        return NONE

    # ---- attributes

    def _member(self, node: ast.Attribute, base: Type, name: str) -> Types:
        """:returns: the types of an attribute"""
        match base.kind:
            case "module":
                self._note(node, MODULE, name)
                return frozenset({Type("class", name)}) if self._is_class(name) else NONE
            case "class":
                self._note(node, base.name, name, instance=False)
                return self._of_class(base.name, name)
            case "object":
                self._note(node, base.name, name)
                return self._of_object(node, base.name, name)
            case "our object" | "our class":
                return self._of_ours(node, base, name)
        return NONE

    def _of_class(self, owner: str, name: str) -> Types:
        if self._is_class(f"{owner}.{name}"):
            return frozenset({Type("class", f"{owner}.{name}")})
        constant = next((found for api in self.apis if (found := api.constants(owner).get(name))), None)
        return self._parsed(constant) if constant else frozenset({Type("method", f"{owner}#{name}")})  # with a self

    def _of_object(self, node: ast.AST, owner: str, name: str) -> Types:
        if self._signatures(owner, name) is not None:
            return frozenset({Type("method", f"{owner}.{name}")})
        kind = next((found for api in self.apis if (found := api.property_type(owner, name)) is not None), None)
        if kind in OPAQUE:
            self.lost.add(f"{self._place(node)}: what {owner}.{name} is")
        return self._parsed(kind)

    def _of_ours(self, node: ast.Attribute, base: Type, name: str) -> Types:
        one = self.program.classes[base.name]
        found = self._variables.get((base.name, name), NONE)
        methods = [methods[name] for methods in self._methods(base) if name in methods]
        if methods:
            return found | union(self._of_method(method, base) for method in methods)
        if found or (base.name, name) in self._own:
            return found
        return union(self._member(node, parent, name) for parent in self._parents(one, instance=base.kind == OBJECT))

    def _methods(self, base: Type) -> Iterator[Mapping[str, Function]]:
        """Of a class of ours, and of those that derive from it: which of them it is does not show."""
        yield self.program.classes[base.name].methods
        for other in self.program.classes.values():
            if Type("our class", base.name) in other.bases:
                yield from self._methods(Type(base.kind, other.node.name))

    def _parents(self, one: Class, *, instance: bool) -> Iterator[Type]:
        """What a class derives from, as far as it is ours or TensorRT's."""
        kinds = {"class": "object", "our class": OBJECT} if instance else {"class": "class", "our class": "our class"}
        yield from (parent._replace(kind=kinds[parent.kind]) for parent in one.bases if parent.kind in kinds)

    def _of_method(self, method: Function, base: Type) -> Types:
        if {"property", "cached_property"} & method.decorators:
            return self._returns[method.name]
        bound = base.kind == OBJECT or "classmethod" in method.decorators
        return frozenset({Type("bound" if bound else "function", method.name)})

    # ---- calls

    def _eval_call(self, node: ast.Call) -> Types:
        given = [self.eval(one) for one in node.args]
        named = {one.arg: self.eval(one.value) for one in node.keywords}
        callees = self.eval(node.func)
        if not callees:
            return self._outside(node, given, named)
        return union(self._called(node, callee, given, named) for callee in callees)

    def _called(self, node: ast.Call, callee: Type, given: list[Types], named: dict[Any, Types]) -> Types:
        match callee.kind:
            case "class":
                self._note_call(node, callee.name, CONSTRUCTOR, given, named)
                return frozenset({Type("object", callee.name)})
            case "method":
                bound = "#" not in callee.name
                owner, _, name = callee.name.rpartition("." if bound else "#")
                return self._of_tensorrt(node, owner, name, given if bound else given[1:], named)
            case "partial":
                wrapped, *before = callee.items
                return union(self._called(node, one, [*before, *given], named) for one in wrapped)
            case "our class":
                self._construct(callee.name, given, named)
                return frozenset({Type("our object", callee.name)})
            case "function" | "bound":
                self._callers[callee.name].add(self._at.name)
                return self._enter(self.program.functions[callee.name], callee.kind == "bound", given, named)
        return NONE

    def _of_tensorrt(
        self, node: ast.Call, owner: str, name: str, given: list[Types], named: dict[Any, Types]
    ) -> Types:  # fmt: skip
        self._note_call(node, owner, name, given, named)
        if (owner, name) in TUPLES:
            return frozenset({Type("tuple", items=tuple(self._parsed(kind) for kind in TUPLES[owner, name]))})
        returned = [one.returns for one in self._signatures(owner, name) or ()]
        if OPAQUE.intersection(returned):
            self.lost.add(f"{self._place(node)}: what {owner}.{name} returns")
        return union(self._parsed(one) for one in returned)

    def _construct(self, name: str, given: list[Types], named: dict[Any, Types]) -> None:
        one = self.program.classes[name]
        if CONSTRUCTOR in one.methods:
            self._enter(one.methods[CONSTRUCTOR], True, given, named)
            return
        for key, types in (*zip(one.fields, given, strict=False), *named.items()):
            self._add(name, key, types)

    def _enter(self, function: Function, bound: bool, given: list[Types], named: dict[Any, Types]) -> Types:
        names = [one.arg for one in function.parameters][1 if bound else 0 :]
        for name, types in (*zip(names, given, strict=False), *named.items()):
            self._add(function.name, name, types)
        returned = self._returns[function.name]
        return elements(returned) if "contextmanager" in function.decorators else returned

    def _outside(self, node: ast.Call, given: list[Types], named: dict[Any, Types]) -> Types:
        """Of a function that is not ours: some hand on what they get, and what others get is lost."""
        match node.func:
            case ast.Name(id="super") if self._at.owner:
                return frozenset(self._parents(self.program.classes[self._at.owner], instance=True))
            case ast.Name(id="getattr"):
                return self._getattr(node, given[0])
            case ast.Name(id="partial") if given[0]:
                return frozenset({Type("partial", items=tuple(given))})
            case ast.Name(id=name) if name in PASSING:
                return PASSING[name](*given)
            case ast.Attribute() as func:
                return self._of_container(node, func, given, named)
            case ast.Name(id=name) if name in HARMLESS:
                pass
            case _:
                self._lose(node, given, named)
        return NONE

    def _getattr(self, node: ast.Call, of: Types) -> Types:
        """By a name that is not known here: of an enum, a member."""
        if isinstance(node.args[1], ast.Constant):
            attribute = ast.Attribute(node.args[0], str(node.args[1].value), ast.Load())
            return self.eval(ast.copy_location(attribute, node))
        self._lose(node, [of], {})
        return union(self._parsed(one.name) for one in of)

    def _of_container(self, node: ast.Call, func: ast.Attribute, given: list[Types], named: dict[Any, Types]) -> Types:
        """Of a list or dictionary, or of an object that nothing is known of: then of all methods of that name."""
        if func.attr in ("append", "add", "extend", "insert"):
            self._bind(func.value, given[-1] if func.attr == "extend" else list_of(given[-1]))
            return NONE
        if func.attr in ("get", "pop", "values", "items"):
            held = elements(self.eval(func.value))
            return list_of(held) if func.attr in ("values", "items") else held
        module = isinstance(func.value, ast.Name) and func.value.id in self.program.imported[self._at.file]
        named_so = () if func.attr.startswith("__") else self.program.named.get(func.attr, ())
        found = [one for one in named_so if bool(one.owner) != module]
        if not found:
            self._lose(node, given, named)
        return union(self._enter(one, bool(one.owner), given, named) for one in found)


def parts(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that an expression directly consists of."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        else:
            yield from parts(child)
