"""Findings in the user's cache: each is a file of JSON, named after all that it belongs to."""

from pathlib import Path
from typing import TypeVar

import msgspec

from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.cache import cached

Found = TypeVar("Found")


def read(kind: str, belongs_to: tuple[str, ...], as_type: type[Found]) -> Found | None:
    """Read a finding. :returns: None if nothing was kept, or if it cannot be read any more"""
    try:
        return msgspec.json.decode(_path(kind, belongs_to).read_bytes(), type=as_type)
    except (OSError, RuntimeError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(kind: str, belongs_to: tuple[str, ...], found: object) -> None:
    """Write a finding.

    :raises OSError, RuntimeError: the cache folder cannot be written; there is no home folder for it
    """
    path = _path(kind, belongs_to)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


def _path(kind: str, belongs_to: tuple[str, ...]) -> Path:
    return cached(kind, *belongs_to).with_suffix(".json")
