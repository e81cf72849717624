"""How many cores there are to compute on."""

import os


def cores() -> int:
    """Cores that this process may use, which a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
