"""Text of others (names, lists, files, libraries) within text of ours."""

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST_EXCERPT = 300  # characters


def visible(text: str) -> str:
    """Text that cannot steer a terminal: what is not printable (Unicode's controls, also those that turn the direction
    of writing, and bytes that are not UTF-8) is written as Python writes it, a newline as `\\n`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def excerpt(text: str) -> str:
    """What a file or a library says, as a part of a sentence of ours: short and visible."""
    shown = visible(text[: _LONGEST_EXCERPT + 1])
    return shown if len(shown) <= _LONGEST_EXCERPT else shown[:_LONGEST_EXCERPT] + "…"


def sentence(text: str) -> str:
    """What a library says over lines, in one and without its full stop."""
    return " ".join(text.split()).removesuffix(".")


def meant(name: str, known: Iterable[str]) -> str:
    """The known names that one may stand for, behind it in a sentence: ` (is it a or b?)`; "" where none is near."""
    close = get_close_matches(name, list(known), n=3)
    return f" (is it {' or '.join(close)}?)" if close else ""
