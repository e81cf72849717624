"""What OpenVINO compiled of a graph: kept in the user's cache, so that the next start neither reads nor compiles it."""

import hashlib
import io
import logging
from collections.abc import Mapping
from typing import Any

from spai_runtime.files.private import PrivateFile

MOST = 4  # that are kept: each is as large as the weights of its encoder in these types
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger("spai_runtime")


class Compiled:
    """One graph on one processor, of one release.

    :param graph: its sha256
    :param machine: release of OpenVINO and processor
    :param changed: what says how the graph was changed before it was compiled; "" if it was not
    """

    def __init__(self, graph: str, machine: str, changed: str) -> None:
        self._file = PrivateFile.of("openvino", graph, machine, changed)

    def load(self, core: Any, settings: Mapping[str, Any]) -> Any | None:
        """:param core: openvino.Core
        :param settings: of openvino.Core.compile_model
        :returns: openvino.CompiledModel; None if nothing was kept, or it cannot be read any more
        """
        try:
            content = memoryview(self._file.read())
            digest, model = content[:_DIGEST], content[_DIGEST:]
            if hashlib.sha256(model).digest() == digest:  # OpenVINO would not see that a weight is another
                return core.import_model(io.BytesIO(model), "CPU", dict(settings))
        except (OSError, RuntimeError) as error:
            log.info("what was compiled before is not read from %s: %s", self._file.folder, error)
        return None

    def save(self, compiled: Any) -> None:
        """What cannot be kept is compiled again next time."""
        model = compiled.export_model().getvalue()
        try:
            self._file.write(hashlib.sha256(model).digest() + model, MOST)
        except OSError as error:
            log.info("cannot keep what was compiled in %s: %s", self._file.folder, error)
