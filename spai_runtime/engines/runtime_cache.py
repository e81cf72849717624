"""A cache of what TensorRT for RTX compiled for one GPU, in the user's cache folder, so that it is compiled once.

It is native code for one plan, GPU, driver and release. So it never lies beside a plan that is handed on.
"""

import logging
from typing import Any

from spai_runtime.files.private import PrivateFile

log = logging.getLogger("spai_runtime")


class RuntimeCache:
    """The IRuntimeCache of TensorRT for RTX, in a file.

    :ivar known: whether something was compiled before, also if this process did it
    """

    def __init__(self, file: PrivateFile) -> None:
        self._file, self._cache, self._saved, self.known = file, None, b"", False

    @classmethod
    def of(cls, plan: str, *machine: str) -> "RuntimeCache":
        """The cache of a plan on a machine.

        :param plan: the sha256 of the plan
        :param machine: the release, GPU, compute capability and driver
        """
        return cls(PrivateFile.of("tensorrt-rtx", plan, *machine))

    def attach(self, config: Any) -> None:
        """Let a plan use the cache.

        :param config: TensorRT for RTX's IRuntimeConfig; its contexts read the cache and add to it
        """
        cache, content = config.create_runtime_cache(), self._content()
        self.known = bool(content) and bool(cache.deserialize(content))  # False: of another driver, or damaged
        self._cache, self._saved = cache, content if self.known else b""
        config.set_runtime_cache(cache)

    def save(self) -> None:
        """Write the cache to its file. If that fails, the run goes on; the next one has to compile again."""
        if self._cache is None:
            return
        content = bytes(self._cache.serialize())
        if content == self._saved:
            return
        try:
            self._file.write(content)
        except OSError as error:
            self._give_up("cannot keep what was compiled in", error)
        else:
            self._saved = content

    def _content(self) -> bytes:
        """The content of the file; empty if there is none, or if others could have written it."""
        try:
            return self._file.read()
        except OSError as error:
            self._give_up("what was compiled before is not read from", error)
            return b""

    def _give_up(self, what: str, error: OSError) -> None:
        """Warn once, and use no file from now on."""
        log.warning("%s %s: %s", what, self._file.folder, error.strerror or error)
        self._file = PrivateFile(None)
