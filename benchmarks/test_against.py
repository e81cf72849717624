"""This checkout against another one: the same images through the same detector, in processes that take turns.

`SPAI_BENCH_AGAINST` names the other checkout, e.g. a `git worktree` of the commit before a change; both run in the
environment of this one. The demo detector is small, so what the pipeline adds weighs more than it would in practice.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from conftest import Report
from measure import ratio, take_turns
from photographs import write_photographs

HERE = Path(__file__).parents[1]
OTHER = os.environ.get("SPAI_BENCH_AGAINST")
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "9"))
IMAGES, WIDTH, HEIGHT = 40, 900, 700
TARGET = 1.02

# Scores the folder once a line that it reads, and says what that took: seconds on the clock, seconds of its threads.
CHILD = """
import sys, time
from pathlib import Path
from spai_runtime import Detector, score_all
paths = sorted(Path(sys.argv[2]).iterdir())
with Detector.load(sys.argv[1], device="cpu") as detector:
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        scores = [result.score.logit for result in score_all(detector, paths)]
        print(time.perf_counter() - wall, time.process_time() - cpu, sum(scores), flush=True)
"""


@pytest.mark.skipif(OTHER is None, reason="SPAI_BENCH_AGAINST names no other checkout")
def test_against(benchmark: Any, report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_photographs(folder, WIDTH, HEIGHT, IMAGES)
    with _scorer(HERE, folder) as now, _scorer(Path(str(OTHER)), folder) as before:
        assert now()[2] == before()[2], "they give other scores"
        said: dict[str, list[tuple[float, float, float]]] = {"now": [], "before": []}
        contenders = {"before": lambda: said["before"].append(before()), "now": lambda: said["now"].append(now())}
        benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    (wall, cpu), (wall_before, cpu_before) = (
        [[times[part] for times in said[name]] for part in (0, 1)] for name in ("now", "before")
    )
    report(
        "against",
        commit_before=_commit(Path(str(OTHER))),
        now_s=median(wall),
        before_s=median(wall_before),
        ratio=ratio(wall, wall_before),
        ratio_of_cpu_time=ratio(cpu, cpu_before),
        ratio_of_best=min(wall) / min(wall_before),
        target=TARGET,
        images=IMAGES,
        megapixels=IMAGES * WIDTH * HEIGHT / 1e6,
        rounds=ROUNDS,
    )


@contextmanager
def _scorer(checkout: Path, folder: Path) -> Iterator[Any]:
    """A process of a checkout; what it gives scores the folder once: wall time, processor time, a checksum."""
    command = [sys.executable, "-c", CHILD, str(HERE / "weights" / "demo"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    ) as child:
        assert child.stdin and child.stdout

        def score() -> tuple[float, float, float]:
            print(file=child.stdin, flush=True)  # type: ignore[arg-type]
            wall, cpu, checksum = map(float, child.stdout.readline().split())  # type: ignore[union-attr]
            return wall, cpu, checksum

        yield score
        child.stdin.close()


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
