"""Commands of the documentation: the fenced blocks of a page, and a shell that runs their lines as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    """What stands in the page's fences of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def lines(page: str, language: str) -> list[str]:
    """The commands of those blocks: a line that ends in a backslash goes on in the next, and comments are left out."""
    whole = (block.replace("\\\n", " ") for block in blocks(page, language))
    commands = (re.sub(r"(^|\s+)# .*", "", line) for block in whole for line in block.splitlines())
    return [command for command in commands if command]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line in a shell, with the commands of this environment before others."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
