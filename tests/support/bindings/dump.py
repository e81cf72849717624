"""The names, enum members and signatures of a TensorRT module as JSON: `python dump.py tensorrt_bindings`.

A script of its own, for a process that finds other libraries and other packages than the tests do. It reads what
pybind11 writes into docstrings: `name(self: …, flags: int = 0) -> …`, numbered where there are overloads.
"""

import importlib
import json
import re
import sys
from types import ModuleType
from typing import Any

PREFIX = re.compile(
    r"\btensorrt\w*\.tensorrt\w*\.|\bnvinfer1::|\bnvonnxparser::I(?=Parser)"
)  # …bindings.tensorrt.Builder
OVERLOAD = re.compile(r"^\d+\. (\w+\(.*)$", re.MULTILINE)


def module_of(module: ModuleType) -> dict[str, Any]:
    """The classes and the other public names."""
    classes: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__name__ == name:
            add_class(classes, name, value)
    names = [name for name in vars(module) if not name.startswith("_")]
    return {"version": module.__version__, "names": sorted({*names, "__version__"}), "classes": classes}


def add_class(classes: dict[str, Any], name: str, kind: type) -> None:
    """A class, and those inside it as `Outer.Inner`. Members of an enum are constants of its own type."""
    own = {key: value for one in reversed(kind.__mro__[:-1]) for key, value in vars(one).items()}
    classes[name] = {
        "bases": [base.__qualname__ for base in kind.__mro__[1:-1]],
        "constants": {key: type(value).__qualname__ for key, value in own.items() if is_constant(value)},
        "methods": {key: signatures(value) for key, value in own.items() if is_method(key, value)},
        "properties": {key: property_of(value) for key, value in own.items() if isinstance(value, property)},
    }
    for key, value in vars(kind).items():
        if isinstance(value, type) and value is not kind and not key.startswith("_"):
            add_class(classes, f"{name}.{key}", value)


def is_constant(value: Any) -> bool:
    return type(value).__module__.startswith("tensorrt")


def is_method(name: str, value: Any) -> bool:
    """What is called; of what has underscores only the constructor is of interest."""
    return (
        (callable(value) or isinstance(value, staticmethod))
        and not isinstance(value, type)
        and (name == "__init__" or not name.startswith("_"))
    )


def property_of(value: property) -> dict[str, Any]:
    """Its type, and whether it can be set."""
    (getter,) = signatures(value.fget) or [{"returns": ""}]
    return {"type": getter["returns"], "settable": value.fset is not None}


def signatures(function: Any) -> list[dict[str, Any]]:
    """Of each overload; empty where pybind11 wrote none."""
    text = PREFIX.sub("", getattr(function, "__doc__", None) or "")
    lines = OVERLOAD.findall(text) if "\nOverloaded function." in text else text.split("\n", 1)[:1]
    return [signature(line) for line in lines if " -> " in line]


def signature(line: str) -> dict[str, Any]:
    """`name(self: A, b: C = 0) -> D` → parameters [name, type, whether it has a default] and what is returned."""
    arguments, _, returns = line.partition("(")[2].rpartition(") -> ")
    return {"parameters": [parameter(part) for part in split(arguments)], "returns": returns.strip()}


def split(arguments: str) -> list[str]:
    """At the commas that lie in no brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(arguments):
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append(arguments[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, arguments[start:]) if part.strip()]


def parameter(text: str) -> list[Any]:
    name, _, rest = text.partition(":")
    kind, default, _ = rest.partition(" = ")
    return [name.strip(), kind.strip(), bool(default)]


if __name__ == "__main__":
    json.dump(module_of(importlib.import_module(sys.argv[1])), sys.stdout)
