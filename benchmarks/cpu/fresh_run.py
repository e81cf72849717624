"""`python -m cpu.fresh_run OPTION…` is `spai-run`, and says on stderr at its end how much memory it took at most."""

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")  # of Linux
PEAK = "VmHWM:"  # most resident memory since this program began; ru_maxrss counts what its parent had, too


def main() -> int:
    """Imports nothing else that spai-run does not."""
    from spai_runtime.cli import main as spai_run  # noqa: PLC0415

    code = spai_run()
    status = STATUS.read_text(encoding="utf-8") if code == 0 and STATUS.exists() else ""
    sys.stderr.writelines(f"{line}\n" for line in status.splitlines() if line.startswith(PEAK))
    return code


def peak(text: str) -> int | None:
    """Bytes, of the line that the kernel has on it."""
    found = [line.split()[1] for line in text.splitlines() if line.startswith(PEAK)]
    return int(found[0]) * 1024 if found else None  # it is in KiB


if __name__ == "__main__":
    sys.exit(main())
