"""Contenders through one batch size after the other: checked, timed alone, then timed in turns."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any

from measure import Times, take_turns
from reference import Reference
from text import first_line, pathless

from gpu.contender import Contender, Runner
from gpu.memory import Peak
from gpu.results import Results, Row, failed
from gpu.settings import Settings
from gpu.timing import latencies, percentiles, steady, warm_up
from spai_runtime.engines.base import DeviceLostError, DeviceMemoryError
from spai_runtime.errors import UserError


class LateError(UserError):
    """Its row says that it was not begun."""


@dataclass(frozen=True)
class Gpu:
    """What is asked of the device.

    :param peak: sees how much memory a `with` takes
    :param free: gives back what allocators keep for later
    :param matmul: TFLOP/s by precision, or why there is no figure
    """

    peak: Callable[[], Peak]
    free: Callable[[], None]
    matmul: Mapping[str, float | str]


@dataclass
class Bench:
    """What a run of all contenders needs.

    :param clock: seconds; nothing is begun after `settings.limit` of them
    """

    gpu: Gpu
    reference: Reference
    results: Results
    settings: Settings
    clock: Callable[[], float] = time.perf_counter
    _begun: float = field(init=False)
    _out: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def run(self, contenders: Sequence[Contender], batch: int) -> None:
        """One row a contender, but none for those that failed at an earlier batch size."""
        left = self.left(contenders)
        entries = [_Entry(contender, self.results.begin(contender, batch)) for contender in left]
        try:
            for entry in entries:
                with self.row_of(entry.contender.name, entry.row):
                    self._alone(entry, batch)
                if failed(entry.row):
                    self._close(entry)
                self.results.write(entry.row)
            self._in_turns([entry for entry in entries if entry.runner], batch)
        finally:
            for entry in entries:
                self._close(entry)
            self.results.write()

    def left(self, contenders: Sequence[Contender]) -> list[Contender]:
        """Those that nothing has gone wrong with."""
        return [contender for contender in contenders if contender.name not in self._out]

    @contextmanager
    def row_of(self, name: str, row: Row) -> Iterator[None]:
        """Whatever goes wrong is said in the row, and the contender of that name takes no further part."""
        try:
            yield
        except (DeviceMemoryError, DeviceLostError) as error:  # UserErrors, but of a back end that is there
            row["error"] = first_line(error)
        except UserError as error:
            row["missing"] = pathless(str(error))
        except Exception as error:  # one contender's failure is its row
            row["error"] = first_line(error)
        if failed(row):
            self._out.add(name)

    def in_time(self) -> None:
        """:raises LateError: nothing more is begun"""
        if self.clock() - self._begun > self.settings.limit:
            raise LateError(f"not begun within {self.settings.limit:g} s; SPAI_BENCH_LIMIT gives it more")

    def _alone(self, entry: "_Entry", batch: int) -> None:
        """Load, compare, latency; what it takes of the GPU's memory is seen on the way."""
        self.in_time()
        contender, row, tiles = entry.contender, entry.row, self.reference.tiles[:batch]
        contender.prepare(batch)
        self.gpu.free()
        with self.gpu.peak() as peak:
            entry.runner = contender.load(tiles)
            features = warm_up(entry.runner)
        row |= {"default_batch": entry.runner.default_batch, "graph": entry.runner.graph}
        row |= self.reference.compare(features, contender.precision)
        row["memory_mb"] = peak.grown / 1e6
        row |= percentiles(latencies(entry.runner.lanes[0], self.settings.seconds, self.clock))

    def _in_turns(self, entries: Sequence["_Entry"], batch: int) -> None:
        """Steady throughput: all that are loaded, one after the other, round by round."""
        turns = {entry.contender.name: self._turn(entry) for entry in entries}
        times = take_turns(turns, self.settings.rounds)
        for entry in entries:
            if not failed(entry.row):
                entry.row |= self._rate(entry, times[entry.contender.name], batch)
            self.results.write(entry.row)

    def _close(self, entry: "_Entry") -> None:
        runner, entry.runner = entry.runner, None
        with self.row_of(entry.contender.name, entry.row):
            if runner is not None:
                runner.close()

    def _turn(self, entry: "_Entry") -> Callable[[], object]:
        """As many launches as fill the time; nothing any more after the first that fails."""
        assert entry.runner is not None
        runner = entry.runner
        entry.launches = max(4, ceil(1e3 * self.settings.seconds / entry.row["latency_p50_ms"]))

        def turn() -> None:
            if not failed(entry.row):
                with self.row_of(entry.contender.name, entry.row):
                    steady(runner.lanes, entry.launches)

        return turn

    def _rate(self, entry: "_Entry", times: Times, batch: int) -> dict[str, Any]:
        """Tiles a second, the median over the rounds, and what that is of the rate of a matrix product."""
        rate = median(entry.launches * batch / seconds for seconds in times.wall)
        ceiling = self.gpu.matmul.get(entry.contender.precision)
        if not isinstance(ceiling, float):
            return {"tiles_per_s": rate}
        return {"tiles_per_s": rate, "fraction_of_matmul": rate * self.reference.flop_per_tile / (ceiling * 1e12)}


@dataclass
class _Entry:
    """A contender at one batch size: its row, and what runs it once it is loaded."""

    contender: Contender
    row: Row
    runner: Runner | None = None
    launches: int = 0
