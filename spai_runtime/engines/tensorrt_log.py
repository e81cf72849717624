"""TensorRT's messages: they are kept here, and not printed as its own logger does."""

from functools import cache
from typing import Any

from spai_runtime.text import sentence


@cache
def log_of(trt: Any) -> Any:
    """A logger that keeps warnings and errors since its last `clear`.

    There is one logger for the process: TensorRT always uses the first one that it was given.

    :param trt: the module `tensorrt` or `tensorrt_lean`
    """
    grave = trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.clear()

        def clear(self) -> None:
            self.messages: list[str] = []
            self.errors: list[str] = []

        @property
        def last(self) -> str:
            """The last error, in which TensorRT sums up what went wrong."""
            return self.errors[-1] if self.errors else "it gives no reason"

        @property
        def out_of_memory(self) -> bool:
            return "outofmemory" in self.last.lower().replace(" ", "")

        def log(self, severity: Any, msg: str) -> None:
            if severity in grave:
                self.errors.append(sentence(msg))
            if severity in (*grave, trt.ILogger.Severity.WARNING):
                self.messages.append(sentence(msg))

    return Log()
