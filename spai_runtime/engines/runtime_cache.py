"""What TensorRT for RTX compiled for one GPU: kept in the user's cache folder, so that it is compiled once.

It is native code, and belongs to one plan, GPU, driver and release. So it never lies beside a plan that is handed on,
and is read from nowhere that another user could have written to.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Any

from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.cache import cached

_FILE = "kernels"
_PRIVATE = 0o700

log = logging.getLogger("spai_runtime")


class RuntimeCache:
    """TensorRT for RTX's IRuntimeCache, in a file.

    :param folder: that is the user's alone, made if it is not there; None keeps nothing
    :ivar known: whether something was compiled before, by this process too
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._cache, self._saved, self.known = folder, None, b"", False

    @classmethod
    def of(cls, plan: str, *machine: str) -> "RuntimeCache":
        """That of a plan on a machine.

        :param plan: its sha256
        :param machine: release, GPU, compute capability and driver
        """
        try:
            return cls(cached("tensorrt-rtx", plan, *machine))
        except RuntimeError:  # no home folder
            return cls(None)

    def attach(self, config: Any) -> None:
        """:param config: TensorRT for RTX's IRuntimeConfig, whose contexts read it and add to it"""
        cache, content = config.create_runtime_cache(), self._content()
        self.known = bool(content) and bool(cache.deserialize(content))  # False: of another driver, or damaged
        self._cache, self._saved = cache, content if self.known else b""
        config.set_runtime_cache(cache)

    def save(self) -> None:
        """A cache that cannot be written costs time, never the run."""
        if self._folder is None or self._cache is None:
            return
        content = bytes(self._cache.serialize())
        if content == self._saved:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            _check_private(self._folder)
            with atomic_write(self._folder / _FILE) as part:
                part.write_bytes(content)
        except OSError as error:
            log.warning("cannot keep what was compiled in %s: %s", self._folder, error.strerror or error)
            self._folder = None  # which is said once
        else:
            self._saved = content

    def _content(self) -> bytes:
        """Of the file; nothing if there is none, or if others could have written it."""
        if self._folder is None:
            return b""
        try:
            _check_private(self._folder)
            return (self._folder / _FILE).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            log.warning("what was compiled before is not read from %s: %s", self._folder, error.strerror or error)
            self._folder = None
            return b""


def _check_private(folder: Path) -> None:
    """:raises OSError: it is a link, another user's, or others may look or write into it"""
    found = folder.lstat()
    if not hasattr(os, "getuid"):  # Windows keeps users apart by the folder that it lies in
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"it should be a folder of your own that nobody else may enter (chmod 700 {folder})")
