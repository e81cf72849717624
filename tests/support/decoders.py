"""Services in the place of the one that decodes apart, which do what decoders of hostile files would do."""

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from spai_runtime.child.process import Answer, Handler
from spai_runtime.images.decoder import decoder


def hostile(before: Callable[[], Any]) -> Handler:
    """The decoder itself, but that something happens before each image."""
    honest = decoder(None)

    def answer(body: Any, arrays: Any) -> Answer:
        answered = honest(body, arrays)
        if isinstance(body, dict):
            before()
        return answered

    return answer


def spins(_: Any) -> Handler:
    return hostile(_spin)


def takes_memory(_: Any) -> Handler:
    return hostile(lambda: np.ones(1 << 30, np.float64))


def crashes(_: Any) -> Handler:
    return hostile(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def lies(_: Any) -> Handler:
    """Says that an image has other rows than it was asked for."""
    return lambda body, _: (None, [np.zeros((1, 2, 3), np.uint8)] if isinstance(body, list) else ())


def _spin() -> None:
    while True:
        pass
