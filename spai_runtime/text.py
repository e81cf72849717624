"""Strangers' text (names, lists, files, libraries) inside our own text."""

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST_EXCERPT = 300  # characters


def visible(text: str) -> str:
    """Make text that cannot steer a terminal: what is not printable (Unicode's controls, also those that turn the
    direction of writing, and bytes that are not UTF-8) is written as Python writes it, a newline as `\\n`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def excerpt(text: str) -> str:
    """A short and visible form of what a file or a library says, as a part of our sentence."""
    shown = visible(text[: _LONGEST_EXCERPT + 1])
    return shown if len(shown) <= _LONGEST_EXCERPT else shown[:_LONGEST_EXCERPT] + "…"


def sentence(text: str) -> str:
    """The message of a library in one line, without its full stop."""
    return " ".join(text.split()).removesuffix(".")


def meant(name: str, known: Iterable[str]) -> str:
    """A question that names the known names like this one: ` (is it a or b?)`; "" if no name is close."""
    close = get_close_matches(name, list(known), n=3)
    return f" (is it {' or '.join(close)}?)" if close else ""
