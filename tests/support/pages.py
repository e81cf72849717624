"""Pages of HTML as a test reads them: elements, and the text between them."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "input", "br", "img"}


class Page(HTMLParser):
    """A page that is read.

    :ivar elements: each tag with the names of its attributes, in their order
    :ivar attributes: every attribute of every element, name and value
    :ivar text: all that stands between tags, but in style and script
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.parts: dict[str, list[str]] = {"style": [], "script": [], "": []}
        self._open: list[str] = []
        self.feed(self.source)
        assert not self._open, "elements that are not closed"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts[""]).split())

    def values(self, tag: str, name: str) -> list[str]:
        """Of an attribute of all elements of a kind."""
        return [value for one, attribute, value in self.attributes if (one, attribute) == (tag, name)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        here = self._open[-1] if self._open else ""
        self.parts[here if here in ("style", "script") else ""].append(data)


ATTACKS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    '" onfocus="alert(1)" autofocus="',
    "javascript:alert(1)",
    "<a href='javascript:alert(1)'>click</a>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<base href='https://example.com/'>",
    "<link rel=stylesheet href='https://example.com/x.css'>",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "${alert(1)}`",
    "</article></main><h1>nothing was found</h1>",
    "<textarea><title><plaintext>",
    "\u202egpj.exe",  # shown from right to left it would end in jpg
    "a\x00b\x1b[31mc\x07",
    "line\nbreak\ttab\u2028separator",
    "＜script＞",
    "x" * 5000,
)
