"""How much more of a GPU's memory is in use at most, between entering and leaving a `with`, by whomever."""

import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from gpu import nvml


class Peak(Protocol):
    """Used once, in a `with`."""

    @property
    def grown(self) -> int:
        """Bytes beyond what was in use at the start."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Polled:
    """As another process sees it all the while.

    :param gpu: `GPU-<uuid>`
    :raises OSError: on entering: that process cannot see it
    """

    def __init__(self, gpu: str) -> None:
        self._gpu, self._before, self._most = gpu, 0, 0

    @property
    def grown(self) -> int:
        return self._most - self._before

    def __enter__(self) -> Self:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, nvml.__file__, self._gpu], text=True, **pipes)
        self._before = self._most = self._number(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text, _ = self._process.communicate()
        if error is None:
            self._most = self._number(text)

    def _number(self, text: str) -> int:
        if not text.strip():
            self._process.communicate()
            raise OSError("NVML does not say how much of the GPU's memory is in use")
        return int(text)


class Compared:
    """As it is at the end: what was given back in between is not seen.

    :param used: bytes in use on the GPU; it is not asked while anything runs, which could be recording a CUDA graph
    """

    def __init__(self, used: Callable[[], int]) -> None:
        self._used, self.grown = used, 0

    def __enter__(self) -> Self:
        self._before = self._used()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.grown = self._used() - self._before


def peaks(gpu: str, used: Callable[[], int]) -> tuple[Callable[[], Peak], str]:
    """What can be had on this machine, and in words how it is measured.

    :param gpu: `GPU-<uuid>`
    """
    try:
        with Polled(gpu):
            pass
    except OSError:
        return lambda: Compared(used), "in use after the warm-up, from CUDA"
    return lambda: Polled(gpu), "the most in use, from NVML in another process"
