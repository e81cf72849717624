"""The directories that contenders load: a model of CONFIGS and the demo detector, with a graph in int8 for those."""

from dataclasses import dataclass
from pathlib import Path

from models import exported

from cpu.contender import Contender
from cpu.images import calibration, demo_scenes
from spai_runtime.detector import demo_directory
from spai_runtime.manifest import Manifest


@dataclass(frozen=True)
class Exports:
    """:param model: of CONFIGS
    :param scenes: of `demo_scenes`
    """

    model: str
    scenes: int

    def published(self, contender: Contender) -> Path:
        """The model, with random weights."""
        return self._of(exported(self.model), contender)

    def trained(self, contender: Contender) -> Path:
        """The demo detector."""
        return self._of(demo_directory(), contender)

    def _of(self, directory: Path, contender: Contender) -> Path:
        if contender.precision != "int8" or has_int8(directory):
            return directory
        return quantised(directory, calibration(demo_scenes(self.scenes)))


def has_int8(directory: Path) -> bool:
    """Whether a graph for CPUs lies there."""
    return any(one.precision == "int8" and one.target for one in Manifest.load(directory).artifacts)


def quantised(directory: Path, images: list[Path]) -> Path:
    """See `int8.quantised`."""
    from cpu.int8 import quantised as made  # noqa: PLC0415  what quantises is imported where int8 takes part

    return made(directory, images)
