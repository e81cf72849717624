"""Latency, steady throughput and the peak of GPU memory of a Runner."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from gpu.contender import BatchInFlight, Features, Runner

FEWEST, MOST = 20, 5000  # launches that a latency is taken over
WARM_UP = 5  # launches of each lane: CUDA graphs are captured in the first two or three
POLL = 0.002  # seconds


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


class Peak:
    """The most that is in use between entering and leaving, beyond what was in use at the start.

    :param used: bytes in use on the GPU, by whomever
    """

    def __init__(self, used: Callable[[], int]) -> None:
        self._used, self._stop = used, threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._before = self._most = 0

    @property
    def grown(self) -> int:
        """Bytes."""
        return self._most - self._before

    def __enter__(self) -> Self:
        self._before = self._most = self._used()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _poll(self) -> None:
        while not self._stop.wait(POLL):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, self._used())
