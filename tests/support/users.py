"""What a user without the rights of root may read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Gives up the rights of root, for which every file is readable."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError:
        pytest.skip("root without the right to become another user reads everything")
    try:
        yield
    finally:
        os.seteuid(0)
