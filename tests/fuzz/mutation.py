"""Random edits of seeds: bytes of a file, and values of a tree of JSON."""

import json
import os
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("SPAI_FUZZ", "1"))

_INTERESTING = tuple(map(bytes.fromhex, ("00", "ff", "80", "7f", "00000000", "ffffffff", "7fffffff", "ffffff7f")))
_DEEP = "nested "
_ODD = 'a9 "\\/\0\n\x1b\x7fé\u202e☃\uffff😀'  # named, since hypothesis lists Unicode for seconds
_HEAD = 256  # bytes, in which most formats say what follows


@dataclass(frozen=True)
class Edit:
    """One change of some bytes.

    :param at: from the start, counted on from there where the file is shorter
    :param length: of the stretch that is replaced, taken out, or copied to elsewhere
    """

    kind: str
    at: int
    length: int
    value: bytes

    def apply(self, content: bytes) -> bytes:
        if not content:
            return self.value
        start = self.at % len(content)
        before, stretch, after = content[:start], content[start : start + self.length], content[start + self.length :]
        changed = {
            "replace": self.value + content[start + len(self.value) :],
            "flip": bytes([content[start] ^ (1 << self.length % 8)]) + content[start + 1 :],
            "insert": self.value + content[start:],
            "remove": after,
            "repeat": stretch * (1 + len(self.value)) + after,
            "truncate": b"",
        }
        return before + changed[self.kind]


def limits(examples: int) -> Callable[[Any], Any]:
    """Settings of a test that tries so many examples, times FACTOR."""
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def edits() -> st.SearchStrategy[list[Edit]]:
    """One to six edits, half of them near the start."""
    places = st.integers(0, _HEAD) | st.integers(0, 1 << 20)
    values = st.sampled_from(_INTERESTING) | st.binary(min_size=1, max_size=8)
    kinds = st.sampled_from(["replace", "flip", "insert", "remove", "repeat", "truncate"])
    return st.lists(st.builds(Edit, kinds, places, st.integers(1, 64), values), min_size=1, max_size=6)


def mutated(content: bytes, changes: list[Edit]) -> bytes:
    """A seed after all the edits."""
    for change in changes:
        content = change.apply(content)
    return content


def odd_values() -> st.SearchStrategy[Any]:
    """What JSON can hold, and what is likely to be mishandled."""
    numbers = st.sampled_from([0, -1, 1, 2**31, 2**40, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320])
    texts = st.sampled_from(["", "a", "..", "/etc/passwd", "a/b", "\0", "\x1b[31m", "é" * 3000, "spai", "fp32", "onnx"])
    leaves = st.none() | st.booleans() | numbers | texts
    keys = st.lists(st.sampled_from(_ODD), max_size=3).map("".join)
    small = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
    return small | st.integers(1, 5000).map(lambda depth: f"{_DEEP}{depth}")


def as_json(tree: Any) -> str:
    """The text of a tree. Where `odd_values` asks for it, lists lie in lists, deeper than Python writes them."""
    return re.sub(f'"{_DEEP}(\\d+)"', lambda found: "[" * int(found[1]) + "]" * int(found[1]), json.dumps(tree))


@dataclass(frozen=True)
class Change:
    """One change of a tree: the value at a place is replaced, or its name taken away."""

    at: int
    value: Any
    remove: bool

    def apply(self, tree: Any) -> None:
        """:param tree: dicts and lists; changed in place"""
        places = list(_places(tree))
        if not places:
            return
        holder, key = places[self.at % len(places)]
        if self.remove:
            del holder[key]
        else:
            holder[key] = self.value


def changed(tree: Any, made: list[Change]) -> Any:
    """A copy of a tree after all the changes."""
    copy = deepcopy(tree)
    for change in made:
        change.apply(copy)
    return copy


def changes() -> st.SearchStrategy[list[Change]]:
    """One to four changes of a tree."""
    return st.lists(st.builds(Change, st.integers(0, 1 << 16), odd_values(), st.booleans()), min_size=1, max_size=4)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a tree, as what holds it and its key or index."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in items:
            yield holder, key
            waiting.append(value)
