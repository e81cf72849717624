"""CUDA graphs are recorded alone: what another thread does on a GPU meanwhile fails, and spoils the recording.

While a thread records in CUDA's global mode, which is ONNX Runtime's (core/providers/cuda/cuda_graph.cc), every thread
is refused "potentially unsafe API calls" with one of the errors 900 to 908. Allocations, frees and waiting for an event
are such calls; no list of them is complete. It does not matter on which GPU they are (CUDA Runtime API, 6.4 Stream
Management, cudaThreadExchangeStreamCaptureMode). So there is one lock for all GPUs of the process.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from spai_runtime.engines.base import DeviceBusyError

PAUSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # seconds between attempts: the warm-up of another library may end

P = ParamSpec("P")
T = TypeVar("T")


class _Depth(threading.local):
    """The number of times that a thread has entered and not yet left."""

    value = 0


class RecordingLock:
    """A lock: either any number of threads use GPUs, or one thread records a CUDA graph and no other does anything."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._depth = _Depth()
        self._users = 0
        self._recorders = 0  # threads that record, or wait until they may
        self._recorder: int | None = None

    def enter(self) -> None:
        """Wait until nobody else records. A thread may enter again before it has left."""
        if self._depth.value == 0:
            with self._changed:
                self._changed.wait_for(lambda: not self._recorders)
                self._users += 1
        self._depth.value += 1

    def leave(self) -> None:
        """Leave; call it once for each `enter`."""
        self._depth.value -= 1
        if self._depth.value == 0:
            self._count(users=-1)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until all other threads have left, and let none in during the block; the caller must have entered."""
        assert self._depth.value > 0
        me = threading.get_ident()
        self._count(users=-1, recorders=1)  # two that wait for each other to leave would wait for ever
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._users and self._recorder is None)
                self._recorder = me
            yield
        finally:
            self._count(users=1, recorders=-1)

    def _count(self, users: int, recorders: int = 0) -> None:
        with self._changed:
            if self._recorder == threading.get_ident():
                self._recorder = None
            self._users += users
            self._recorders += recorders
            self._changed.notify_all()


RECORDINGS = RecordingLock()


def retried(call: Callable[P, T]) -> Callable[P, T]:
    """Repeat a call that fails because somebody else records, for example another library in this process.

    :param call: a function that can be repeated, and that leaves its `with gpu:` when it fails
    """

    @wraps(call)
    def attempts(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in PAUSES:
            try:
                return call(*args, **kwargs)
            except DeviceBusyError:
                time.sleep(pause)
        return call(*args, **kwargs)

    return attempts
