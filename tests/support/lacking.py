"""Python with the packages of this environment but for some: these are missing as they are on other machines."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Sequence
from pathlib import Path


class Lacking:
    """:param folder: in which a link to every package lies
    :param names: of modules and of distributions, in any spelling, that have none
    """

    def __init__(self, folder: Path, names: Collection[str]) -> None:
        folder.mkdir()
        wanted = {_plain(name) for name in names}
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if entry.suffix != ".pth" and _plain(entry.name.partition("-")[0].partition(".")[0]) not in wanted:
                (folder / entry.name).symlink_to(entry)
        self.folder = folder

    def python(self, *arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """:param environment: variables beside those of this process"""
        command: Sequence[str | Path] = [sys.executable, "-S", *arguments]
        variables = {**os.environ, "PYTHONPATH": str(self.folder), **environment}
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
