"""Graphs that OpenVINO compiled: kept in the user's cache, so that the next start need not read and compile them."""

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
    """The compiled form of one graph, for one processor and one release.

    :param graph: the sha256 of the graph
    :param machine: the release of OpenVINO and the processor
    :param changed: a text that identifies how the graph was changed before it was compiled; "" if it was not
    """

    def __init__(self, graph: str, machine: str, changed: str) -> None:
        self._file = PrivateFile.of("openvino", graph, machine, changed)

    def load(self, core: Any, settings: Mapping[str, Any]) -> Any | None:
        """Load what was kept.

        :param core: openvino.Core
        :param settings: the settings for openvino.Core.compile_model
        :returns: openvino.CompiledModel; None if nothing was kept, or if it cannot be read any more
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
        """Keep a compiled graph; if that fails, the graph is compiled again next time."""
        model = compiled.export_model().getvalue()
        try:
            self._file.write(hashlib.sha256(model).digest() + model, MOST)
        except OSError as error:
            log.info("cannot keep what was compiled in %s: %s", self._file.folder, error)
