"""Pages: HTML that loads nothing, runs only its own script, and shows what others wrote as plain text.

Every text is escaped by jinja2, and the page's content security policy allows only the style and the script whose
digests it names. So a file's name or a CSV's cell stays text, whatever it says.
"""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spai_runtime.text import visible

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 1_000  # characters of a text that a page shows

# (a, b, c, d, e, f) of SVG's `matrix`, which turns stored pixels of width w and height h as EXIF says
_TURNS = {
    1: "1 0 0 1 0 0",
    2: "-1 0 0 1 {w} 0",
    3: "-1 0 0 -1 {w} {h}",
    4: "1 0 0 -1 0 {h}",
    5: "0 1 1 0 0 0",
    6: "0 1 -1 0 {h} 0",
    7: "0 -1 -1 0 {h} {w}",
    8: "0 -1 1 0 0 {w}",
}


def write_page(file: IO[str], template: str, *folders: Path, **context: Any) -> None:
    """Write a page piece by piece, so that its context's iterators are never in memory as a whole.

    :param template: a file in one of the folders, or in this package's; it extends `base.html`
    :raises OSError: the file cannot be written
    """
    environment = _environment(folders)
    style = Markup(_part(environment, "style.css", context))
    script = Markup(_part(environment, context.get("script", "report.js"), context))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    for piece in environment.get_template(template).generate(**context, style=style, script_text=script, policy=policy):
        file.write(piece)


@cache
def _environment(folders: Sequence[Path]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data": _data, "turn": _turn, "score": _score}
    return environment


def _part(environment: Environment, name: str, context: dict[str, Any]) -> str:
    """Render the style or the script; neither holds anything that others wrote."""
    return environment.get_template(name).render(**context)


def _digest(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shown(value: Any) -> Any:
    """Clean a value that a template shows: strangers' text cannot turn the direction of writing, nor fill the page."""
    return visible(value[:LONGEST]) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data(content: bytes, kind: str) -> Markup:
    """The address (data URL) that holds an image."""
    return Markup(f"data:image/{kind};base64,{b64encode(content).decode()}")


def _turn(orientation: int, width: int, height: int) -> str:
    return f"matrix({_TURNS[orientation].format(w=width, h=height)})"


def _score(value: float | None) -> str:
    """A score with four digits; one that is not exactly 0 or 1 is never shown as 0 or 1."""
    if value is None:
        return "—"
    if 0 < value < 5e-5:
        return "< 0.0001"
    if 1 - 5e-5 < value < 1:
        return "> 0.9999"
    return f"{value:.4f}"
