"""Turns: processes that each decode images of their own, of which no two decode a very large one at once."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from spai_runtime.scoring.budget import PIXEL_BYTES


class Turns:
    """Lets images that take more than `limit` be decoded one at a time, whichever process does it.

    N workers that share it, each with one image at a time, then take no more than N · `limit` and one such image. A
    process inherits it when it starts; it cannot be sent to one later.

    :param limit: the limit in bytes
    """

    def __init__(self, limit: int = PIXEL_BYTES) -> None:
        self._limit, self._lock = limit, multiprocessing.RLock()

    @contextmanager
    def take(self, nbytes: int) -> Iterator[None]:
        """A context for work that takes so much memory; above the limit, it waits for its turn."""
        if nbytes <= self._limit:
            yield
            return
        with self._lock:
            yield
