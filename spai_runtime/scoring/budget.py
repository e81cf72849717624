"""The budget limits how many bytes of pixels may be in memory at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

PIXEL_BYTES = 128 << 20  # decoded pixels, and what their decoders take, at once; one larger image is alone


class Budget:
    """Bytes of pixels in flight, granted in the order of the tickets.

    They are granted in that order because results leave in order too: if later images could take all there is, the
    image that everything waits for would never get its share. An image above the limit is granted when no other is in
    flight.

    Whoever consumes images in the order of the tickets never waits forever. Let ticket k be the next one, and not
    granted yet. Then all bytes in use belong to images before k, which the consumer already has. If a batcher holds
    some of them until their features are there, `starves` tells the consumer to finish these batches; once nothing is
    in use, k is granted. If k is granted, the consumer only waits for its decoder, which waits for nobody.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._next, self._closed = limit, 0, 0, False
        self._asked: dict[int, int] = {}  # ticket → bytes, of those that wait
        self._changed = threading.Condition()

    def take(self, ticket: int, nbytes: int) -> None:
        """Wait for the ticket's turn and for room; every ticket must come, with 0 if it needs none."""
        with self._changed:
            self._asked[ticket] = nbytes
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or (ticket == self._next and self._fits(nbytes)))
            del self._asked[ticket]
            self._used += nbytes
            self._next += 1
            self._changed.notify_all()

    def give(self, nbytes: int) -> None:
        """Take back all or a part of what a ticket had."""
        with self._changed:
            self._used -= nbytes
            self._changed.notify_all()

    @contextmanager
    def held(self, ticket: int, nbytes: int) -> Iterator[None]:
        """Wait as `take` does, and give everything back at the end of the block."""
        self.take(ticket, nbytes)
        try:
            yield
        finally:
            self.give(nbytes)

    def watch(self, future: Future[Any]) -> None:
        """Watch a future, so that `starves` learns when it ends."""
        future.add_done_callback(lambda _: self._notify())

    def starves(self, future: Future[Any]) -> bool:
        """Wait until the future, which must be watched, is done: False; or until a ticket finds no room: True."""
        with self._changed:
            self._changed.wait_for(lambda: future.done() or not self._fits(self._asked.get(self._next, 0)))
            return not future.done()

    def granted(self, ticket: int) -> bool:
        """Whether the ticket has been given its share, even if it has returned it."""
        with self._changed:
            return ticket < self._next

    def close(self) -> None:
        """Let every waiting thread go, for a run that ends early."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return not nbytes or not self._used or self._used + nbytes <= self._limit
