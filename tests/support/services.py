"""Services of a child process, as `module:function`, that do what tests ask them."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from spai_runtime.child.message import Array
from spai_runtime.child.process import Answer, Handler
from spai_runtime.errors import ImageError


def echo(settings: Any) -> Handler:
    """Gives back what it is given, and what it was started with."""
    print("a library that prints")  # noqa: T201

    def answer(body: Any, arrays: Sequence[Array]) -> Answer:
        return {"settings": settings, "body": body, "process": os.getpid()}, arrays

    return answer


def misbehave(settings: Any) -> Handler:
    """Does what the body of a request names."""
    if settings == "refuse":
        raise ImageError("these settings are refused")
    deeds = {
        "spin": _spin,
        "sleep": lambda: time.sleep(600),
        "allocate": lambda: np.ones(1 << 30, np.float64),
        "image error": _raise_an_image_error,
        "bug": lambda: {}["absent"],
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "abort": os.abort,
        "exit": lambda: os._exit(3),
        "process": lambda: None,
        "write": lambda: _write_a_file(settings),
        "nonsense": lambda: os.write(_pipe_to_the_parent(), b"\xff" * 64),
        "a head without end": lambda: os.write(_pipe_to_the_parent(), (1 << 40).to_bytes(8, "little")),
    }

    def answer(body: Any, _: Sequence[Array]) -> Answer:
        if body == "a large answer":
            return None, [np.zeros(1 << 16, np.uint8)]
        deeds[body]()
        return os.getpid(), ()

    return answer


def _spin() -> None:
    while True:
        pass


def _raise_an_image_error() -> None:
    raise ImageError("no image:\nat all")


def _write_a_file(path: str) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"x" * 4096)


def _pipe_to_the_parent() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd") if _is_pipe(name))  # noqa: PTH208


def _is_pipe(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")  # noqa: PTH115
    except OSError:
        return False
