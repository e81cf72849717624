"""`python3 benchmarks/gpu/offline --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # where the package `gpu` lies

from gpu.offline.commands import main

if __name__ == "__main__":
    sys.exit(main())
