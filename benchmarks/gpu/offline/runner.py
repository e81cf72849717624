"""Runs steps, each within its time, and writes what came of each at once."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import json_files
from text import pathless

from gpu.offline.pack import ROOT
from gpu.offline.steps import FOLDER, Command, Step

MARGIN = 40  # seconds before a step's limit after which a measurement begins nothing new
STATE = "step.json"
PASSED, FAILED, STOPPED, RUNNING = "passed", "failed", "stopped", "running"

Outcome = dict[str, Any]


def run(
    steps: Sequence[Step], output: Path, variables: Mapping[str, str], written: Callable[[], object] = lambda: None
) -> list[Outcome]:
    """All of them, whatever comes of one.

    :param output: gets a folder for each step: step.json, log.txt and what the step itself writes
    :param variables: of the environment
    :param written: called after each step
    """
    outcomes = []
    for step in steps:
        outcomes.append(_run(step, output / step.name, variables))
        written()
    return outcomes


def _run(step: Step, folder: Path, variables: Mapping[str, str]) -> Outcome:
    if (folder / STATE).exists():
        shutil.rmtree(folder)  # what an earlier run left is not taken for this one's
    folder.mkdir(parents=True, exist_ok=True)
    outcome: Outcome = {"step": step.name, "state": RUNNING, "limit_s": step.limit}
    json_files.write(folder / STATE, outcome)
    begun, codes = time.monotonic(), list[int | None]()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        for command in step.commands:
            left = step.limit - (time.monotonic() - begun)
            codes.append(_process(command, folder, variables, left, log) if left > 0 else None)
    line = pathless(_last_line(folder / "log.txt"))
    state = STOPPED if None in codes else PASSED if not any(codes) and step.said in line else FAILED
    outcome |= {"state": state, "exit_codes": codes, "seconds": round(time.monotonic() - begun, 1), "last_line": line}
    json_files.write(folder / STATE, outcome)
    return outcome


def _process(command: Command, folder: Path, variables: Mapping[str, str], limit: float, log: TextIO) -> int | None:
    """What it prints goes to the log and to the terminal. :returns: its exit status; None: it was stopped"""
    stopped = threading.Event()
    with _started(command, folder, variables, limit) as process:

        def stop() -> None:
            stopped.set()
            os.killpg(process.pid, signal.SIGKILL)  # it may have begun others

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            _copy(process.stdout, log)
            code = process.wait()
        except BaseException:
            stop()
            raise
        finally:
            timer.cancel()
    return None if stopped.is_set() else code


def _started(command: Command, folder: Path, variables: Mapping[str, str], limit: float) -> "subprocess.Popen[str]":
    words = [str(folder.resolve()) if word == FOLDER else word for word in command.arguments]
    last = {"SPAI_BENCH_LIMIT": f"{max(1.0, limit - MARGIN):.0f}"}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**last, **variables, **command.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _copy(lines: Iterable[str] | None, log: TextIO) -> None:
    for line in lines or ():
        for stream in (log, sys.stdout):
            stream.write(line)
            stream.flush()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")
