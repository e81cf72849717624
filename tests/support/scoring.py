"""Images to score, and runs that must come to an end."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from spai_runtime import Result
from spai_runtime.files.sources import Item
from tests.support.images import pixels

PATIENCE = 30  # seconds; a test that waits as long has found a deadlock
SIZES = [(40, 40), (33, 90), (1, 1), (64, 64), (200, 120), (50, 300), (32, 32)] * 4


def items(folder: Path, sizes: list[tuple[int, int]]) -> list[Item]:
    """One PNG of each size."""
    found = []
    for index, (height, width) in enumerate(sizes):
        path = folder / f"{index}.png"
        Image.fromarray(pixels(height, width, index)).save(path)
        found.append(Item(path, path.name))
    return found


def decoding() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def in_time(action: Callable[[], None]) -> None:
    """Runs it in a thread, and fails where it does not end."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "deadlock"


def stops_after(after: int, results: Iterator[Result]) -> None:
    """Takes so many results and no more: no decoding thread is left."""

    def stop() -> None:
        for _ in range(after):
            next(results)
        results.close()  # type: ignore[attr-defined]

    in_time(stop)
    assert decoding() == []
