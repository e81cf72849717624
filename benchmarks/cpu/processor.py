"""What the processor is called."""

import platform
import re
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")


COMMON = ("avx2", "avx512f", "asimd")  # every processor of a machine that anyone runs this on has them


def described(machine: dict[str, Any]) -> dict[str, Any]:
    """:param machine: as conftest.py describes it
    :returns: name, flags that matter to low precisions, and cores that this process may use
    """
    flags = [flag for flag in machine["cpu_features"] if flag not in COMMON]
    return {"name": name(), "flags": flags, "cores": machine["cores_allowed"]}


def name(cpuinfo: Path = CPUINFO) -> str:
    """Without marks and clock: `Intel Xeon Processor`; the architecture where nothing tells more."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if found is None:
        return platform.processor() or platform.machine()
    plain = re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", found[1], flags=re.IGNORECASE)
    return " ".join(plain.split())
