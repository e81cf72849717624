"""The folder that keeps what can be made again, and costs time to make."""

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
