"""Text of others (names, lists, files, libraries) within text of ours."""

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
