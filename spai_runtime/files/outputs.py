"""The files that a run with `--output` writes, and a check that no input is among them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spai_runtime.errors import OutputError
from spai_runtime.files.locked import check_regular
from spai_runtime.files.sources import printable


@dataclass(frozen=True)
class OutputFiles:
    """The files of a run; while the run goes on, each of them has the name that `partial` gives.

    :param rows: the path that `--output` names
    """

    rows: Path

    @property
    def record(self) -> Path:
        """The record of the run, in JSON."""
        return Path(f"{self.rows}.run.json")

    @property
    def stamps(self) -> Path:
        """The stamps, which `--resume` needs to know of each row."""
        return Path(f"{self.rows}.resume")

    def check(self) -> None:
        """Check the files' names. :raises OutputError: something with such a name is no regular file"""
        for path in self.all():
            check_regular(path)

    def all(self) -> list[Path]:
        """All files that the run may write, finished or not."""
        finished = [self.rows, self.record, self.stamps]
        return [*finished, *map(partial, finished)]


def partial(path: Path) -> Path:
    """The path of a file until its run is complete."""
    return Path(f"{path}.partial")


def refuse_inputs(written: Mapping[Path, str], inputs: Iterable[Path]) -> None:
    """Refuse to replace an input; the inputs are looked at once.

    :param written: the files that a run would replace, each with the option that names another one
    :raises OutputError: one of the inputs is among them, under whatever name
    """
    ours = {identity: path for path in written if (identity := _identity(path))}
    if not ours:
        return
    for path in inputs:
        if (identity := _identity(path)) in ours:
            target = ours[identity]
            raise OutputError(
                f"{printable(path)} is an input, and the run would replace it as {printable(target)}: "
                f"name another {written[target]}"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """An identity that all names of a file share; None if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116  for every image of a run
    except (OSError, ValueError):  # a name with a zero byte in it
        return None
    return status.st_dev, status.st_ino
