"""A contender in a process of its own.

What a process has allocated and freed before decides how glibc gets memory for large tensors. Beside other engines,
eager PyTorch is faster than alone, as its users have it; ours keep their buffers, and are as fast.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from reference import Features, Tiles

Encode = Callable[[list[Tiles]], list[Features]]  # of batches, on all cores
Load = Callable[[ExitStack], Encode]  # what it opens is closed with the stack

_loaded: list[Encode] = []  # the one of this process


def apart(load: Load) -> Load:
    """:param load: that another process can be sent
    :returns: what loads it there, and has it encode there
    """

    def loads(opened: ExitStack) -> Encode:
        pool = opened.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        pool.submit(_load, load).result()
        return lambda batches: pool.submit(_encode, batches).result()

    return loads


def _load(load: Load) -> None:
    _loaded.append(load(ExitStack()))


def _encode(batches: list[Tiles]) -> list[Features]:
    (encode,) = _loaded
    return encode(batches)
