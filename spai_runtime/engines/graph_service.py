"""The code that the child process of an `IsolatedEngine` runs: it loads a graph and runs batches."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from spai_runtime.child.process import Answer, Handler
from spai_runtime.engines.base import Array, Contract
from spai_runtime.engines.onnx_session import import_runtime
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.errors import EngineError

Loaded = TypeVar("Loaded")

_OUT_OF_MEMORY = re.compile("failed to allocate memory|bad_alloc|out of memory", re.IGNORECASE)  # ONNX Runtime's words


def prepare() -> None:
    """See `Service`. ONNX Runtime is imported here, so that the limits hold for the graph alone."""
    import_runtime()


def serve(settings: Any) -> Handler:
    """Load the graph, and return what runs batches; see `Service`."""
    path, contract = Path(os.fsdecode(bytes.fromhex(settings["path"]))), settings["contract"]
    engine = _telling(lambda: OnnxEngine(path, msgspec.convert(contract, Contract)))

    def answer(_: Any, arrays: Sequence[Array]) -> Answer:
        return None, _telling(lambda: engine.run(arrays[0]))

    return answer


def _telling(work: Callable[[], Loaded]) -> Loaded:
    """Turn ONNX Runtime's lack of memory into Python's. :raises MemoryError: ONNX Runtime has no memory left"""
    try:
        return work()
    except EngineError as error:
        if _OUT_OF_MEMORY.search(str(error)):
            raise MemoryError from error
        raise
