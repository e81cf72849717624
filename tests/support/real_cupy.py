"""Says what the CuPy that is installed has, without a GPU or a driver: `python -m tests.support.real_cupy NAME…`.

It writes a JSON object: for each dotted name its parameters, with their defaults where they have one, as Python writes
them; an empty list where it has none that can be found out; null where there is no such name. For a class they are
those of making one.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

Parameters = list[list[str]]


def found(name: str) -> Any:
    """:raises AttributeError: there is no such name"""
    first, *parts = name.split(".")
    value = import_module(first)
    for part in parts:
        value = getattr(value, part)
    return value


def parameters(called: Callable[..., Any]) -> Parameters:
    """Of a function, or of what Cython has compiled, which writes them into the first line of its documentation."""
    try:
        return [
            [one.name] if one.default is one.empty else [one.name, repr(one.default)]
            for one in inspect.signature(called).parameters.values()
        ]
    except (TypeError, ValueError):
        line = (called.__doc__ or "").strip().partition("\n")[0]
        written = re.match(r"[\w.]+\((.*?)\)", line)
        return documented(written.group(1)) if written else []


def documented(text: str) -> Parameters:
    """The parameters that a piece of documentation shows, such as `self, arr, stream=None`."""
    untyped = re.sub(r"(^|, *)\w+ (?=\w)", r"\1", text)  # `size_t size` of Cython
    try:
        (function,) = ast.parse(f"def f({untyped}): ...").body
    except SyntaxError:
        return []
    assert isinstance(function, ast.FunctionDef)
    names = [one.arg for one in function.args.args]
    defaults = [repr(ast.literal_eval(one)) for one in function.args.defaults]
    plain = len(names) - len(defaults)
    return [[name] for name in names[:plain]] + [list(pair) for pair in zip(names[plain:], defaults, strict=True)]


def described(name: str) -> Parameters | None:
    try:
        value = found(name)
    except AttributeError:
        return None
    return parameters(value) if callable(value) else []


if __name__ == "__main__":
    print(json.dumps({name: described(name) for name in sys.argv[1:]}))  # noqa: T201
