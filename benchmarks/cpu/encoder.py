"""The encoder alone: every contender at its best batch size, in turns, beside upstream's formulation in eager fp32."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median

import numpy as np
import torch
from baseline import BaselineEncoder
from goals import Row
from measure import ratio, take_turns
from models import random_model
from reference import Features, Reference, Tiles
from runs import encode

from cpu.apart import Encode, Load, apart
from cpu.bench import Bench, Rows
from cpu.contender import Contender
from cpu.results import Results, said_in
from cpu.settings import ENCODER, Settings
from spai_runtime.cores import cores

BATCHES = (1, 2, 4, 8)
BASELINE: Row = {"backend": "PyTorch", "precision": "fp32"}  # upstream's formulation


@dataclass
class Entry:
    """A contender that is loaded.

    :param figures: of its row
    :param seconds: of a batch, by the number of its tiles
    :param per_tile: seconds of each turn
    """

    figures: Row
    encode: Encode
    tiles: Tiles
    seconds: Mapping[int, float]
    per_tile: Sequence[float] = ()

    @property
    def batch(self) -> int:
        """The number of tiles at which one takes the least time."""
        return min(self.seconds, key=lambda batch: self.seconds[batch] / batch)

    def run(self, batch: int, launches: int) -> None:
        """That many batches."""
        self.encode([self.tiles[:batch]] * launches)

    def turn(self, seconds: float) -> Callable[[], None]:
        """Fills the time; nothing any more after the first that fails."""
        self.figures |= {"batch": self.batch, "launches": ceil(seconds / self.seconds[self.batch])}

        def run() -> None:
            if "error" not in self.figures:
                with said_in(self.figures):
                    self.run(self.batch, self.figures["launches"])

        return run


@dataclass(frozen=True)
class Upstream:
    """Loads upstream's formulation.

    :param model: of CONFIGS
    """

    model: str

    def __call__(self, _: ExitStack) -> Encode:
        """See `Load`."""
        torch.set_num_threads(cores())
        model = random_model(self.model)
        module = BaselineEncoder(model.encoder, model.config).eval()

        def run(batches: list[Tiles]) -> list[Features]:
            with torch.inference_mode():
                return [module(torch.from_numpy(tiles)).numpy() for tiles in batches]

        return run


@dataclass(frozen=True)
class Ours:
    """Loads a contender's encoder.

    :param directory: that it runs
    """

    contender: Contender
    directory: Path

    def __call__(self, opened: ExitStack) -> Encode:
        """See `Load`."""
        return partial(encode, opened.enter_context(self.contender.load(self.directory)))


def measure(bench: Bench, rows: Rows) -> None:
    """Upstream's formulation gets a row of its own."""
    model = random_model(bench.settings.model)
    side = model.config.tile_size
    tiles = np.random.default_rng(0).integers(0, 256, (max(BATCHES), side, side, 3), dtype=np.uint8)
    upstream: Row = {**BASELINE}
    bench.results.rows.insert(0, upstream)
    contenders = [(upstream, apart(Upstream(bench.settings.model)))]
    contenders += [(row, apart(Ours(contender, bench.exports.published(contender)))) for row, contender in rows]
    measure_encoders(bench.results, Reference(model, tiles), bench.settings, contenders)


def measure_encoders(
    results: Results, reference: Reference, settings: Settings, contenders: Sequence[tuple[Row, Load]]
) -> None:
    """Loads all, compares each with the reference, tries batch sizes, and lets those that are left take turns.

    :param contenders: with their rows; the first is the one that the others are compared with
    """
    with ExitStack() as loaded:
        entries = []
        for row, load in contenders:
            with results.part(row, ENCODER) as figures:
                run = load(loaded)
                figures.update(reference.compare(run([reference.tiles])[0], row["precision"]))
                entries.append(_tried(figures, run, reference.tiles, settings.seconds / 2))
        _in_turns(entries, settings)
        _rate(entries, contenders[0][0][ENCODER])
    for row, _ in contenders:
        with results.part(row, ENCODER):  # so that it is written
            pass


def _tried(figures: Row, run: Encode, tiles: Tiles, seconds: float) -> Entry:
    """With every batch size, once and then until the time is up."""
    entry = Entry(figures, run, tiles, {})
    entry.seconds = {batch: _seconds(entry, batch, seconds) for batch in BATCHES}
    figures["tiles_per_s_by_batch"] = {str(batch): batch / taken for batch, taken in entry.seconds.items()}
    return entry


def _seconds(entry: Entry, batch: int, least: float) -> float:
    """Of a batch, the mean over as many as take that time."""
    begun, launches, left = time.perf_counter(), 0, 1
    while left > 0:
        entry.run(batch, left)
        launches, passed = launches + left, time.perf_counter() - begun
        left = ceil((least - passed) / (passed / launches))
    return passed / launches


def _in_turns(entries: Sequence[Entry], settings: Settings) -> None:
    """All that are loaded, one after the other, round by round."""
    times = take_turns({index: entry.turn(settings.seconds) for index, entry in enumerate(entries)}, settings.rounds)
    for index, entry in enumerate(entries):
        entry.per_tile = [wall / (entry.figures["launches"] * entry.batch) for wall in times[index].wall]


def _rate(entries: Sequence[Entry], baseline: Row) -> None:
    """Tiles a second, and how many times the baseline's: medians over the rounds."""
    against = next((entry for entry in entries if entry.figures is baseline and "error" not in baseline), None)
    for entry in entries:
        if "error" not in entry.figures:
            entry.figures["tiles_per_s"] = 1 / median(entry.per_tile)
            if against is not None:
                entry.figures["ratio"] = ratio(against.per_tile, entry.per_tile)
