"""Latency and steady throughput of a Runner."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from gpu.contender import BatchInFlight, Features, Runner

FEWEST, MOST = 20, 5000  # launches that a latency is taken over
WARM_UP = 5  # launches of each lane: CUDA graphs are captured in the first two or three


def warm_up(runner: Runner) -> Features:
    """:returns: the features of the last launch, a copy"""
    for lane in runner.lanes:
        for _ in range(WARM_UP):
            lane.launch()
            lane.wait()
    runner.lanes[0].launch()
    return runner.lanes[0].wait().copy()


def latencies(lane: BatchInFlight, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds from a launch until its features lie on the host, one launch at a time.

    :param seconds: that it goes on for, though never for fewer than FEWEST launches
    """
    found: list[float] = []
    end = clock() + seconds
    while len(found) < FEWEST or (clock() < end and len(found) < MOST):
        start = clock()
        lane.launch()
        lane.wait()
        found.append(clock() - start)
    return found


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of latencies, in milliseconds."""
    half, last = np.percentile(seconds, [50, 99])
    return {"latency_p50_ms": 1e3 * float(half), "latency_p99_ms": 1e3 * float(last), "launches": len(seconds)}


def steady(lanes: Sequence[BatchInFlight], launches: int) -> None:
    """Launches back to back: a lane is begun again as soon as it is done, while the others are under way."""
    for index in range(launches):
        lane = lanes[index % len(lanes)]
        if index >= len(lanes):
            lane.wait()
        lane.launch()
    for lane in lanes[:launches]:
        lane.wait()
