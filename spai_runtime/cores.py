"""The number of cores that may be used to compute."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cores(root: Path = Path("/")) -> int:
    """The number of cores that this process may use: those it may run on, and no more than its control groups allow.

    A group may have a quota of processor time, as a container has with `docker run --cpus`. The quotas of all groups
    around it apply too, so the smallest one counts. Half a core counts as one, as it does in Java and in Go.

    :param root: the folder that holds `proc` and `sys`
    """
    if not hasattr(os, "sched_getaffinity"):  # on macOS and Windows, which have no control groups
        return os.cpu_count() or 1
    return min([len(os.sched_getaffinity(0)), *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    """The quotas of this process's control groups and of the groups around them, in whole cores."""
    for folder in _groups(root):
        quota, _, period = (_read(folder / "cpu.max") or _of_version_1(folder)).partition(" ")
        try:
            whole = -(-int(quota) // int(period))  # rounded up
        except (ValueError, ZeroDivisionError):  # "max", or no such file
            continue
        if whole > 0:  # version 1 writes -1 where there is none
            yield whole


def _of_version_1(folder: Path) -> str:
    return f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in, each followed by those around it.

    A container may see its own group in place of the root, and still be told the group's name outside. So names that do
    not exist are skipped on the way up.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        inside = [] if ".." in group.parts else [group, *group.parents]  # ".." leads out of what is mounted
        for mount in _mounts(root / "sys/fs/cgroup", controllers):
            yield from (mount / name for name in inside or [PurePosixPath()])


def _mounts(parent: Path, controllers: str) -> list[Path]:
    """The folders where a hierarchy may be mounted. :param controllers: "" for version 2"""
    return [parent / name for name in dict.fromkeys((controllers, "cpu"))] if controllers else [parent]


def _read(path: Path) -> str:
    """The content of a file; "" if it does not exist, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
