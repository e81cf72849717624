"""Limits on the memory and the time that a child process may take."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

OUT_OF_MEMORY = 77  # the exit code of a child that has none left; Python and shells use no number near it

_STATM = Path("/proc/self/statm")  # Linux alone: its first number is the address space in pages


@dataclass(frozen=True)
class Limits:
    """The memory and time that a child may take: once for its start, and then again for each request.

    The deadline by the clock holds on every system, because the parent keeps it. Processor time is limited where Python
    has the module `resource` (not on Windows), memory on Linux, whose kernel keeps RLIMIT_AS.

    :param memory: bytes of address space beyond what the process has before it is given anything
    :param cpu_seconds: processor time of all threads together; the kernel counts whole seconds
    :param seconds: time by the clock
    """

    memory: int
    cpu_seconds: float
    seconds: float

    def encode(self) -> str:
        """The limits as text for a command line."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "Limits":
        """Read the limits from the text that `encode` wrote."""
        return msgspec.json.decode(text, type=cls)

    def hold(self) -> None:
        """Limit this process: its memory from now on; it writes no core dump and not one byte to a file."""
        if resource is None:
            return
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_FSIZE, 0)
        if _STATM.exists():
            _lower(resource.RLIMIT_AS, int(_STATM.read_text().split()[0]) * resource.getpagesize() + self.memory)

    def arm(self) -> None:
        """Let this process take `cpu_seconds` from now on; after that the kernel ends it with SIGXCPU."""
        if resource is not None:
            _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + self.cpu_seconds))


def _lower(kind: int, limit: int) -> None:
    """Set the soft limit, which can be raised again; it stays within the hard limit that the process started with."""
    _, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):  # a system that knows the name alone
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
