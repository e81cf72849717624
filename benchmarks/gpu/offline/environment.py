"""What steps are run in: packages and libraries that were packed, beside those of the machine."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu.offline.pack import ROOT


def environment(sites: Sequence[Path], given: Mapping[str, str]) -> dict[str, str]:
    """:param sites: folders of packages, which go before those of the machine; none where it lacks nothing
    :param given: variables of this process
    """
    paths = [*sites, ROOT, ROOT / "benchmarks"]
    found = {**given, "PYTHONPATH": _before(given.get("PYTHONPATH"), paths), "PYTHONUNBUFFERED": "1"}
    libraries = nvidia()
    if not sites or libraries is None:
        return found
    for folder in sites:
        link(folder / "nvidia", libraries)
    folders = sorted(libraries.glob("*/lib"))
    return {**found, "LD_LIBRARY_PATH": _before(given.get("LD_LIBRARY_PATH"), folders)}


def nvidia() -> Path | None:
    """Where PyTorch's wheels of CUDA libraries lie, if that is where it has them from."""
    found = importlib.util.find_spec("nvidia")
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None


def _before(already: str | None, paths: Sequence[Path]) -> str:
    return os.pathsep.join([*map(str, paths), *filter(None, [already])])


def link(path: Path, target: Path) -> None:
    """ONNX Runtime looks for CUDA's libraries beside itself (`preload_dlls`)."""
    if not path.is_symlink():
        path.symlink_to(target)
