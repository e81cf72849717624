"""The table of detectors. None is imported before it is asked for, so that `--help` can name them without torch.

A detector is one module with a `SPEC`, a `DetectorSpec` (see `spec`), and one row of DETECTORS.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from spai_runtime.errors import UserError

if TYPE_CHECKING:
    from spai_train.detectors.spec import DetectorSpec

# The name that `--detector`, a recipe, a checkpoint and detector.json know it by → the module of its SPEC.
DETECTORS: dict[str, str] = {
    "spai": "spai_train.detectors.spai",
    "rine": "spai_train.detectors.rine",
    "clipdet": "spai_train.detectors.clipdet",
    "corvi2023": "spai_train.detectors.corvi2023",
    "community-forensics": "spai_train.detectors.community_forensics",
    "dda": "spai_train.detectors.dda",
    "cospy": "spai_train.detectors.cospy",
    "probe": "spai_train.detectors.probe",
}
DEFAULT = "spai"  # what recipes and checkpoints are of that name none


def find(name: str) -> "DetectorSpec":
    """:raises UserError: there is no detector of that name"""
    if name not in DETECTORS:
        raise UserError(f"there is no detector {name}; known are: {', '.join(DETECTORS)}")
    spec: DetectorSpec = import_module(DETECTORS[name]).SPEC
    return spec


def every() -> "Iterator[DetectorSpec]":
    """All detectors, in the order of the table."""
    return map(find, DETECTORS)
