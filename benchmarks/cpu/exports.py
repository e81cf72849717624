"""The directories that contenders load: a model of CONFIGS and the demo detector, with a graph in int8 for those."""

from dataclasses import dataclass
from pathlib import Path

from models import exported

from cpu.contender import Contender
from spai_runtime.detector import demo_directory
from spai_runtime.manifest import Manifest


@dataclass(frozen=True)
class Exports:
    """:param model: of CONFIGS"""

    model: str

    def published(self, contender: Contender) -> Path:
        """The model, with random weights."""
        return self._of(exported(self.model), contender)

    def trained(self, contender: Contender) -> Path:
        """The demo detector."""
        return self._of(demo_directory(), contender)

    def _of(self, directory: Path, contender: Contender) -> Path:
        if contender.precision != "int8" or has_int8(directory):
            return directory
        return quantised(directory)


def has_int8(directory: Path) -> bool:
    """Whether a graph for CPUs lies there."""
    return any(one.precision == "int8" and one.target for one in Manifest.load(directory).artifacts)


def quantised(directory: Path) -> Path:
    """Its graphs, and one of int8 beside them."""
    raise NotImplementedError
