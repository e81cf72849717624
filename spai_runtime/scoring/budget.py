"""The budget: how many bytes of pixels may be in memory at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

PIXEL_BYTES = 128 << 20  # decoded pixels, and what their decoders take, at once; one larger image is alone


class Budget:
    """Bytes of pixels in flight, granted in the order of the tickets.

    In that order, because results leave in order too: if later images could take all there is, the one that everything
    waits for would never get its share. An image larger than the limit is granted when nothing else is in flight.

    Whoever consumes images in the order of the tickets never waits forever. Be ticket k the next it consumes, and not
    granted yet: then all bytes in use are those of images before k, which it has. A batcher that holds some of them
    until their features are there is told by `starves` to get them done, and with nothing in use k is granted. If k is
    granted, only its decoder is waited for, which waits for nobody.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._next, self._closed = limit, 0, 0, False
        self._asked: dict[int, int] = {}  # ticket → bytes, of those that wait
        self._changed = threading.Condition()

    def take(self, ticket: int, nbytes: int) -> None:
        """Waits for the ticket's turn and for room; every ticket must come, with 0 if it needs none."""
        with self._changed:
            self._asked[ticket] = nbytes
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or (ticket == self._next and self._fits(nbytes)))
            del self._asked[ticket]
            self._used += nbytes
            self._next += 1
            self._changed.notify_all()

    def give(self, nbytes: int) -> None:
        """Takes back what a ticket had, or a part of it."""
        with self._changed:
            self._used -= nbytes
            self._changed.notify_all()

    @contextmanager
    def held(self, ticket: int, nbytes: int) -> Iterator[None]:
        """Waits as `take` does, and gives all of it back at the end of the block."""
        self.take(ticket, nbytes)
        try:
            yield
        finally:
            self.give(nbytes)

    def watch(self, future: Future[Any]) -> None:
        """Lets `starves` see it end."""
        future.add_done_callback(lambda _: self._notify())

    def starves(self, future: Future[Any]) -> bool:
        """Waits until the future, which is watched, is done: False; or until a ticket finds no room: True."""
        with self._changed:
            self._changed.wait_for(lambda: future.done() or not self._fits(self._asked.get(self._next, 0)))
            return not future.done()

    def granted(self, ticket: int) -> bool:
        """Whether it has its share, or had it."""
        with self._changed:
            return ticket < self._next

    def close(self) -> None:
        """Lets every waiting thread go, for a run that ends early."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return not nbytes or not self._used or self._used + nbytes <= self._limit
