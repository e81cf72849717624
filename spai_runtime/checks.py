"""How far scores of an artifact were found to be from those of fp32 on this machine: kept in the user's cache."""

import os
from pathlib import Path

import msgspec

from spai_runtime.errors import OutputError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.cache import cached
from spai_runtime.manifest import Accuracy, Artifact


def found(artifact: Artifact, engine: str) -> Accuracy | None:
    """What was found of an artifact.

    :param engine: label of what runs its encoder, which names the GPU, driver and release where scores depend on them
    :returns: None if nothing was, or it cannot be read any more
    """
    try:
        return msgspec.json.decode(_path(artifact, engine).read_bytes(), type=Accuracy)
    except (OSError, RuntimeError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def prepare() -> None:
    """Makes the folder that `keep` writes into. :raises OutputError: it cannot be written"""
    try:
        folder = cached("checks").parent
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no right to write into {folder}")
    except (OSError, RuntimeError) as error:
        raise OutputError(str(error)) from error


def keep(artifact: Artifact, engine: str, accuracy: Accuracy) -> None:
    """Writes it down. :raises OutputError: the cache folder cannot be written"""
    try:
        path = _path(artifact, engine)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(accuracy)) + b"\n")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"what the check found cannot be kept ({error}): set SPAI_CACHE to a folder") from error


def _path(artifact: Artifact, engine: str) -> Path:
    return cached("checks", artifact.encoder.sha256, artifact.head.sha256, engine).with_suffix(".json")
