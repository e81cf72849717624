"""The instructions that the processor has."""

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# Instructions that multiply int8 and add up in int32, as the kernel names them on x86 and on Arm.
_INT8 = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))
_BF16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def multiplies_int8() -> bool:
    """Whether the processor has instructions for dot products of int8; without them int8 may be slower than fp32.

    On Windows and on Intel Macs nothing says so, and it counts as having none. Every Mac with Apple's own processor has
    them.
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return not _INT8.isdisjoint(flags())


def fast_flags() -> Sequence[str]:
    """The names of its instructions for products of bf16 and int8, sorted."""
    return sorted(flags() & (_INT8 | _BF16))


def flags() -> frozenset[str]:
    """The flags of the first processor, with the names that Linux gives them; empty on other systems."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, ()))
