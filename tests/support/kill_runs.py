"""spai-run, killed at random moments and resumed until it is through, again and again: run by test_resume.py.

Usage: kill_runs.py KILLS INPUT... Each run is a fork, which costs no imports. Prints a line of JSON: how many were
killed and how many finished, and the digests of what the finished ones left, which is one digest where all is well.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import onnxruntime  # noqa: F401  before the forks

from spai_runtime.cli.run import main

OUTPUT = Path("killed.csv")


def run(arguments: list[str]) -> int:
    """A run in a fork; :returns: its process."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(main([*arguments, "--output", str(OUTPUT), "--resume", "--workers", "1", "--batch-size", "3"]))
    return child


def seconds(arguments: list[str]) -> float:
    """How long a run takes that is left alone."""
    start = time.monotonic()
    os.waitpid(run(arguments), 0)
    return time.monotonic() - start


def forget() -> None:
    for path in Path().glob(f"{OUTPUT}*"):
        path.unlink()


def main_loop(kills: int, arguments: list[str]) -> None:
    moment, rng = seconds(arguments), random.Random(0)
    killed, finished, digests = 0, 0, set()
    while killed + finished < kills or not finished:
        process = run(arguments)
        time.sleep(rng.uniform(0, 1.1 * moment))
        os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        killed += code == -signal.SIGKILL
        if code != -signal.SIGKILL:
            finished += 1
            digests.add(hashlib.sha256(OUTPUT.read_bytes()).hexdigest())
            forget()
    print(json.dumps({"killed": killed, "finished": finished, "digests": sorted(digests)}))  # noqa: T201


if __name__ == "__main__":
    main_loop(int(sys.argv[1]), sys.argv[2:])
