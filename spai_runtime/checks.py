"""The user's cache of accuracy: how far an artifact's scores were found to be from those of fp32 on this machine."""

import os

from spai_runtime.errors import OutputError
from spai_runtime.files import kept
from spai_runtime.files.cache import cached
from spai_runtime.manifest import Accuracy, Artifact

_KIND = "checks"


def found(artifact: Artifact, engine: str) -> Accuracy | None:
    """The accuracy that was found before for an artifact on this machine.

    :param engine: label of what runs its encoder; it names the GPU, driver and release if the scores depend on them
    :returns: None if nothing was found before, or if it cannot be read any more
    """
    return kept.read(_KIND, _belongs_to(artifact, engine), Accuracy)


def prepare() -> None:
    """Make the folder that `keep` writes into. :raises OutputError: it cannot be written"""
    try:
        folder = cached(_KIND).parent
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no right to write into {folder}")
    except (OSError, RuntimeError) as error:
        raise OutputError(str(error)) from error


def keep(artifact: Artifact, engine: str, accuracy: Accuracy) -> None:
    """Write the accuracy into the cache. :raises OutputError: the cache folder cannot be written"""
    try:
        kept.write(_KIND, _belongs_to(artifact, engine), accuracy)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"what the check found cannot be kept ({error}): set SPAI_CACHE to a folder") from error


def _belongs_to(artifact: Artifact, engine: str) -> tuple[str, ...]:
    return artifact.encoder.sha256, artifact.head.sha256, engine
