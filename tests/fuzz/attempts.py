"""What any attempt may come to: it succeeds, or raises one UserError of one line, in bounded time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from spai_runtime.errors import UserError

CPU_SECONDS = 10  # that none may take


@contextmanager
def one_line_at_most() -> Iterator[None]:
    """Around an attempt."""
    started = time.process_time()
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error)
        assert str(error)
    assert time.process_time() - started < CPU_SECONDS
