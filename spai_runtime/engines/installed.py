"""A check whether a back end's library is installed, without loading it; and the message about one that is missing."""

from importlib.util import find_spec

from spai_runtime.text import sentence


def is_installed(module: str) -> bool:
    """Whether a module could be imported, as far as its file shows."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # an import system that refuses it; a module that names no file
        return False


def absence(error: Exception, module: str, name: str) -> str:
    """The reason why a library could not be imported: it is not installed, or lacks the libraries that it loads.

    :param error: the error of the import
    :param name: the library's name, for people
    """
    if getattr(error, "name", None) == module:
        return f"{name} is not installed"
    return f"{name} cannot be loaded ({sentence(str(error))})"
