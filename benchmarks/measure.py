"""Times of contenders that take turns, so that what else the machine does falls on all of them alike."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Times:
    """Of one contender, one value a round: seconds on the clock, and seconds of all its threads on a core.

    The latter count worker processes too, once these have ended.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def take_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Runs every contender once a round, in order; what comes before the first round is the caller's to warm up."""
    times = {name: Times() for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), _processor_time()
            run()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(_processor_time() - cpu)
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median over the rounds of slow / fast."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def _processor_time() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system
