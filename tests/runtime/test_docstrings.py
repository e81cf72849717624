"""A docstring begins with words that say something by themselves, and not in the middle of a sentence."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Beginnings of a summary that hangs on something outside it, such as the name of the function.
FRAGMENT = re.compile(r"(Of|By|That|Likewise|Whose)\b|As (`|they\b|it\b)")


@pytest.mark.parametrize("package", ["spai_runtime", "spai_train", "spai_export"])
def test_no_summary_is_a_fragment(package: str) -> None:
    """Every module, class and function of the package, private ones too."""
    fragments = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if text and FRAGMENT.match(text):
                fragments.append(f"{path.relative_to(ROOT)}:{node.body[0].lineno}: {text.splitlines()[0]}")
    assert not fragments, "\n".join(fragments)
