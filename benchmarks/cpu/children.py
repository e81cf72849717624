"""Fresh processes that measure themselves: modules of this package, run by the Python that runs this."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]


class ChildError(Exception):
    """A child failed; this is the last that it said."""


def start(module: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """:param module: of this package, as `cpu.latency`"""
    places = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )


def finish(child: "subprocess.Popen[str]") -> tuple[str, str]:
    """:returns: the rest of its stdout, and its stderr
    :raises ChildError: its exit code is not 0
    """
    written, said = child.communicate()
    if child.returncode:
        raise ChildError((said.strip().splitlines() or [f"exit code {child.returncode}"])[-1])
    return written, said
