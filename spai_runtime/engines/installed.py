"""Whether a back end's library is there, found out without loading it."""

from importlib.util import find_spec


def is_installed(module: str) -> bool:
    """Whether a module could be imported, as far as its file tells."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # an import system that refuses it; a module that names no file
        return False
