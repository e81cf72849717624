"""Does a pickle ask for code? Its opcodes tell, and none of them is executed."""

import pickletools
import struct
import zipfile
from pathlib import Path
from typing import IO

_ASKS = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}  # opcodes that fetch something by its name
_PICKLES = 5  # that torch.save wrote one behind the other, before it wrote zip files


def asks_for_code(path: Path) -> bool:
    """Whether a file that torch.save or pickle wrote fetches anything by its name, as far as it can be read."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return any(_fetches(file) for _ in range(_PICKLES))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            return any(_fetches(archive.open(name)) for name in names)
    except (OSError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile):  # RuntimeError: parts with a password
        return False


def _fetches(file: IO[bytes]) -> bool:
    """:raises ValueError: it is no pickle, or a cut one"""
    return any(opcode.name in _ASKS for opcode, *_ in pickletools.genops(file))
