"""The folder for things that can be made again, but take time to make."""

import hashlib
import os
import sys
from pathlib import Path

CACHE = "SPAI_CACHE"  # the variable of the environment that names it
_OURS = "spai-toolkit"


def cache_folder() -> Path:
    """The folder that SPAI_CACHE names, or one where the platform keeps its users' caches; it may not exist yet.

    :raises RuntimeError: there is no home folder
    """
    if given := os.environ.get(CACHE):
        return Path(given).absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / _OURS
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / _OURS
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / _OURS  # as XDG asks


def cached(kind: str, *belongs_to: str) -> Path:
    """The path in that folder for something of one kind that belongs to all these texts; it may not exist yet.

    :raises RuntimeError: there is no home folder
    """
    return cache_folder() / kind / hashlib.sha256("\0".join(belongs_to).encode()).hexdigest()[:32]
