"""spai-run in a process of its own, and what a command left behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


def command(*arguments: object, prelude: str = "", main: str = "spai_runtime.cli.run") -> list[str]:
    """The words that start spai-run in a process of its own.

    :param prelude: Python that runs first
    :param main: the module of another command
    """
    code = f"{prelude}\nimport sys\nfrom {main} import main\nsys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def spawn(*arguments: object, prelude: str = "", **environment: str) -> Ran:
    """spai-run in a process of its own, in a pipe.

    :param prelude: Python that runs first
    :param environment: beside that of this process
    """
    started = command(*arguments, prelude=prelude)
    done = subprocess.run(
        started, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)
