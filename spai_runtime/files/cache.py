"""The folder that keeps what can be made again, and costs time to make."""

import hashlib
import os
import sys
from pathlib import Path

CACHE = "SPAI_CACHE"  # the variable of the environment that names it
_OURS = "spai-toolkit"


def cache_folder() -> Path:
    """What SPAI_CACHE names, else a folder of ours where the platform keeps its users' caches; it may not exist yet.

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
    """Where in that folder something of a kind lies that belongs to all of these; nothing may be there yet.

    :raises RuntimeError: there is no home folder
    """
    return cache_folder() / kind / hashlib.sha256("\0".join(belongs_to).encode()).hexdigest()[:32]
