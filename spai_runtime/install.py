"""The commands that install what is missing: an extra of this package, from where the package itself came."""

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "spai-toolkit"


def extra(name: str) -> str:
    """A requirement for pip: `'.[export]'` in a checkout, `'spai-toolkit[export]'` for an installed package."""
    return f"'{'.' if from_checkout() else NAME}[{name}]'"


def install(name: str) -> str:
    """The command that installs an extra."""
    return f"pip install {extra(name)}"


@cache
def from_checkout() -> bool:
    """Whether the package runs from a checkout or was installed from one; a package index may then not have it."""
    return _has_project(Path(__file__).parents[1]) or _installed_from_folder()


def _has_project(folder: Path) -> bool:
    """Whether a folder holds the project's pyproject.toml."""
    try:
        return f'name = "{NAME}"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _installed_from_folder() -> bool:
    """Whether pip has noted that the package came from a folder and no index (PEP 610)."""
    try:
        source = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return False
    return isinstance(source, dict) and "dir_info" in source
