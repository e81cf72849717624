"""One image again and again, on few cores:

    python -m cpu.repeated_score DIRECTORY BACKEND PRECISION WARM_UP IMAGE CORES SECONDS

prints the seconds that each call of `Detector.score` took, as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

FEWEST = 3  # images, however long they take


def main(directory: str, backend: str, precision: str, warm_up: str, image: str, cores: str, seconds: str) -> None:
    """The cores are taken away before anything counts them."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    from cpu.contender import Contender  # noqa: PLC0415

    with Contender(backend, precision).load(Path(directory)) as detector:
        detector.score(warm_up)
        print(json.dumps(timed(lambda: detector.score(image), float(seconds))))  # noqa: T201


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, one after the other until the time is up."""
    found: list[float] = []
    while len(found) < FEWEST or sum(found) < seconds:
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
