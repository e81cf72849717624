"""Text of others within Markdown of ours."""

import re

from spai_runtime.text import visible

# All that begins anything inside a line of GitHub's Markdown: code, emphasis, links, HTML, tables, entities, formulas.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")


def escaped(value: object) -> str:
    """A value as text in one line, which is shown as it is."""
    return _SPECIAL.sub(r"\\\1", visible(str(value)))
