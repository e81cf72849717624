"""Cores that a process may use, in containers that are folders here."""

import os
from pathlib import Path

import pytest

from spai_runtime.cores import cores

HERE = 16  # cores that the process may run on


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(HERE)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


GROUPS = "proc/self/cgroup"
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/cpu,cpuacct/"
NAMED_V1 = "5:memory:/a/b\n4:cpuset:/\n3:cpu,cpuacct:/docker/1234\n1:name=systemd:/docker/1234\n0::/\n"


CONTAINERS: dict[str, tuple[int, dict[str, str]]] = {  # which quota → cores, and the files that say it
    "nothing is limited": (HERE, {GROUPS: "0::/user.slice\n", f"{V2}user.slice/cpu.max": "max 100000\n"}),
    "of two cores": (2, {GROUPS: "0::/\n", f"{V2}cpu.max": "200000 100000\n"}),
    "of a part of a core": (1, {GROUPS: "0::/\n", f"{V2}cpu.max": "5000 100000\n"}),
    "of two and a half cores": (3, {GROUPS: "0::/\n", f"{V2}cpu.max": "250000 100000\n"}),
    "of more than there are": (HERE, {GROUPS: "0::/\n", f"{V2}cpu.max": "3200000 100000\n"}),
    "of a group far above": (
        4,
        {
            GROUPS: "0::/kubepods/pod-a/leaf\n",
            f"{V2}kubepods/cpu.max": "400000 100000\n",
            f"{V2}kubepods/pod-a/cpu.max": "800000 100000\n",
            f"{V2}kubepods/pod-a/leaf/cpu.max": "max 100000\n",
        },
    ),
    "of the group itself, below a larger one": (
        2,
        {GROUPS: "0::/a/b\n", f"{V2}a/cpu.max": "800000 100000\n", f"{V2}a/b/cpu.max": "100000 50000\n"},
    ),
    "of a group that has another name outside": (3, {GROUPS: "0::/docker/1234\n", f"{V2}cpu.max": "300000 100000\n"}),
    "of a group outside what is mounted": (
        5,
        {GROUPS: "0::/../other\n", f"{V2}cpu.max": "500000 100000\n", "sys/fs/other/cpu.max": "100000 100000\n"},
    ),
    "of a name with a colon": (6, {GROUPS: "0::/a:b\n", f"{V2}a:b/cpu.max": "600000 100000\n"}),
    "of version 1": (
        2,
        {
            GROUPS: NAMED_V1,
            f"{V1}docker/1234/cpu.cfs_quota_us": "150000\n",
            f"{V1}docker/1234/cpu.cfs_period_us": "100000\n",
        },
    ),
    "of version 1, mounted from the container's group on": (
        7,
        {GROUPS: NAMED_V1, f"{V1}cpu.cfs_quota_us": "700000\n", f"{V1}cpu.cfs_period_us": "100000\n"},
    ),
    "of version 1, under the name of one controller": (
        8,
        {
            GROUPS: NAMED_V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "800000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    ),
    "of version 1, without a quota": (
        HERE,
        {GROUPS: NAMED_V1, f"{V1}cpu.cfs_quota_us": "-1\n", f"{V1}cpu.cfs_period_us": "100000\n"},
    ),
    "of version 1, of another controller": (
        HERE,
        {
            GROUPS: "3:cpuset:/\n",
            "sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpuset/cpu.cfs_period_us": "100000\n",
        },
    ),
    "no /proc": (HERE, {f"{V2}cpu.max": "200000 100000\n"}),
    "a group without files": (HERE, {GROUPS: "0::/nowhere\n"}),
    "not a number": (HERE, {GROUPS: "0::/\n", f"{V2}cpu.max": "many 100000\n"}),
    "no period": (HERE, {GROUPS: "0::/\n", f"{V2}cpu.max": "200000\n"}),
    "a period of nothing": (HERE, {GROUPS: "0::/\n", f"{V2}cpu.max": "200000 0\n"}),
    "more digits than a float has": (HERE, {GROUPS: "0::/\n", f"{V2}cpu.max": f"{10**400} 1\n"}),
    "no line": (HERE, {GROUPS: "\n::\nnonsense\n3:cpu\n"}),
}


@pytest.mark.parametrize("what", CONTAINERS)
def test_the_quota_of_a_container(tmp_path: Path, what: str) -> None:
    found, files = CONTAINERS[what]
    assert cores(write(tmp_path, files)) == found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, {GROUPS: "0::/\n"})
    (tmp_path / V2 / "cpu.max").mkdir(parents=True)
    assert cores(tmp_path) == HERE
    (tmp_path / GROUPS).write_bytes(b"0::/\xff\n")
    assert cores(tmp_path) == HERE


def test_where_no_affinity_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    write(tmp_path, {GROUPS: "0::/\n", f"{V2}cpu.max": "200000 100000\n"})
    assert cores(tmp_path) == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1
