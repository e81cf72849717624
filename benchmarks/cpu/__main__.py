"""`python benchmarks/cpu [FOLDER]` measures what `settings.py` reads from the environment, for a result file in FOLDER.

It prints the tables of this run and its goals. Exit code 1: a goal is missed, or its engine failed.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where this package lies

from goals import lines

from cpu.goals import failures
from cpu.measurement import measure
from cpu.settings import Settings
from cpu.table import tables


def main(arguments: list[str]) -> int:
    """:returns: the exit code"""
    result = measure(Settings.of(os.environ), Path(arguments[0]) if arguments else None).content
    print("", tables([result]), *lines(result["goals"]), sep="\n")  # noqa: T201
    missed = failures(result["goals"])
    for entry in missed:
        said = f"{entry['engine']}: {entry['measured']}, and {entry['asked']} was asked for: {entry['goal']}"
        print(said, file=sys.stderr)  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
