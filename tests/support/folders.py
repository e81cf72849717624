"""Trees of folders that no path reaches the end of."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def deep_folders(top: Path, depth: int, name: str = "d", image: bytes = b"") -> Iterator[None]:
    """So many folders, each in the one before; images `a.jpg` and `z.jpg` in every hundredth, `m.jpg` in the last.

    They go when the block ends: pytest could not remove them.
    """
    here = Path.cwd()
    try:
        top.mkdir()
        os.chdir(top)
        for level in range(depth):
            if level % 100 == 50 and len(name) * level < 4000:
                for file in ("a.jpg", "z.jpg"):
                    Path(file).write_bytes(image)
            Path(name).mkdir()
            os.chdir(name)
        Path("m.jpg").write_bytes(image)
        os.chdir(here)
        yield
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(top)], check=True)
