"""Other people's text, made safe to stand in our Markdown."""

import re

from spai_runtime.text import visible

# All that begins anything inside a line of GitHub's Markdown: code, emphasis, links, HTML, tables, entities, formulas.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")


def escaped(value: object) -> str:
    """A value as one line of Markdown that shows exactly this text."""
    return _SPECIAL.sub(r"\\\1", visible(str(value)))
