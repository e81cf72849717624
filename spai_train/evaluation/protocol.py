"""Protocols: which real images a generator's images are told from, and the metrics that come of it.

Intervals come from one bootstrap for all: every source's images of a class are drawn again among themselves, and a
generator that shares its real images with others shares their draws, so that the mean's interval is right too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.bootstrap import Counts, Floats, Interval, blocks, draw
from spai_train.evaluation.metrics import METRICS, bootstrap_rate
from spai_train.evaluation.scored import ScoredTable, Stratum
from spai_train.evaluation.tally import Ranking

Number = TypeVar("Number", bound=np.generic)
Opponents = tuple[str, ...]  # sources whose real images a generator's are told from, all at once


class Protocol(StrEnum):
    """The rule for the real images that a generator is measured against; the generators' mean is taken after that.

    Whatever the protocol, a source with images of both classes is measured against its own real images alone.
    """

    POOLED = "pooled"
    SPAI = "spai"

    @property
    def rule(self) -> str:
        """What the protocol does, in words."""
        return {
            Protocol.POOLED: "each generator against the real images of all sources together",
            Protocol.SPAI: "each generator against each real source, then the mean over the real sources",
        }[self]

    def opponents(self, strata: Iterable[Stratum]) -> dict[str, list[Opponents]]:
        """Each generator → its opponents, over which its metrics are averaged; none where no image is real.

        POOLED is what GRIP's evaluation does (grip-unina/ClipBased-SyntheticImageDetection, compute_metrics.py); SPAI
        is what the paper's tables do, whose 13 generators meet 5 real sources.
        """
        strata = list(strata)
        real = [source for source, label in strata if label == REAL]
        together = [tuple(real)] if real else []
        apart: list[Opponents] = together if self is Protocol.POOLED else [(source,) for source in real]
        generators = [source for source, label in strata if label == GENERATED]
        own: dict[str, list[Opponents]] = {source: [(source,)] for source in real}
        return {source: own.get(source, apart) for source in generators}


@dataclass(frozen=True)
class Pairs:
    """A benchmark's own pairs of generators and real sources.

    :param rest: the protocol of generators that have no pairs
    :param against: patterns of generators → the real sources that they are told from, all at once
    """

    rest: Protocol
    against: tuple[tuple[str, Opponents], ...]
    value = "benchmark"

    @classmethod
    def of(cls, rest: Protocol, against: Mapping[str, Sequence[str]]) -> "Pairs":
        """:param rest, against: see the class"""
        return cls(rest, tuple((pattern, tuple(sources)) for pattern, sources in against.items()))

    @property
    def rule(self) -> str:
        """What the protocol does, in words."""
        pairs = "; ".join(f"{pattern} against {' + '.join(sources)}" for pattern, sources in self.against)
        return f"{pairs}; any other: {self.rest.rule}"

    def opponents(self, strata: Iterable[Stratum]) -> dict[str, list[Opponents]]:
        """See `Protocol.opponents`; a generator whose real sources are not there is not measured."""
        strata = list(strata)
        real = {source for source, label in strata if label == REAL}
        found = self.rest.opponents(strata)
        for generator in (source for source in found if source not in real):
            for pattern, sources in self.against:
                if fnmatchcase(generator, pattern):
                    found[generator] = [sources] if real.issuperset(sources) else []
        return found


@dataclass(frozen=True)
class Rate:
    """How many images of a source and class are labelled `ai`: false positives for real images, else finds.

    :param errors: images that could not be scored
    """

    source: str
    label: int
    images: int
    errors: int
    labelled_ai: Interval | None


@dataclass(frozen=True)
class Measurement:
    """What a table of scores says of a detector.

    :param rates: those of every source and class
    :param opponents: those of each generator that was measured
    :param metrics: those of each generator, by the names of METRICS
    :param mean: the mean over the generators; empty where there is none, or no real image
    """

    threshold: float
    rates: tuple[Rate, ...]
    opponents: dict[str, list[Opponents]]
    metrics: dict[str, dict[str, Interval]]
    mean: dict[str, Interval]

    def metrics_of(self, rate: Rate) -> dict[str, Interval]:
        """The metrics of the rate's source, if it is a generator that was measured."""
        return self.metrics.get(rate.source, {}) if rate.label == GENERATED else {}

    def opponents_of(self, rate: Rate) -> list[Opponents]:
        """The opponents that gave the metrics of `metrics_of`."""
        return self.opponents.get(rate.source, []) if rate.label == GENERATED else []


def measure(table: ScoredTable, protocol: Protocol | Pairs, threshold: float, resamples: int, seed: int) -> Measurement:
    """All metrics of all generators with their bootstrap 95% intervals.

    :param resamples: each costs 2 bytes an image
    """
    strata = table.strata
    opponents = {source: against for source, against in protocol.opponents(strata).items() if against}
    rates = _rates(table, threshold, resamples, seed)
    if not opponents:
        return Measurement(threshold, rates, {}, {}, {})
    contests = [_Contests(strata, source, against) for source, against in opponents.items()]
    values = np.stack([contest.metrics(threshold)[:, 0] for contest in contests])  # (G, M)
    resampled = _resampled(contests, strata, threshold, resamples, seed)  # (G, M, S)
    metrics = {source: _intervals(*pair) for source, *pair in zip(opponents, values, resampled, strict=True)}
    return Measurement(threshold, rates, opponents, metrics, _intervals(values.mean(axis=0), resampled.mean(axis=0)))


class _Contests:
    """A generator's scores beside those of each of its opponents, sorted once.

    :param strata: the scores of each stratum
    """

    def __init__(self, strata: Mapping[Stratum, Floats], generator: str, opponents: list[Opponents]) -> None:
        self._generated = generator, GENERATED
        self._real = [[(source, REAL) for source in sources] for sources in opponents]
        self._rankings = [Ranking(_joined(strata, real), strata[self._generated]) for real in self._real]

    def metrics(self, threshold: float, weights: Mapping[Stratum, Counts] | None = None) -> Floats:
        """The METRICS as means over the opponents, (M, S).

        :param weights: those of each stratum, (S, n); None counts each image once, S = 1
        """
        total = np.zeros(())
        for ranking, real in zip(self._rankings, self._real, strict=True):
            drawn = (_joined(weights, real), weights[self._generated]) if weights else ()
            tally = ranking.tally(*drawn)
            total = total + np.stack([metric(tally, threshold) for metric in METRICS.values()])
        return total / len(self._rankings)


def _joined(columns: Mapping[Stratum, NDArray[Number]], strata: list[Stratum]) -> NDArray[Number]:
    """The arrays (…, n) of several strata, side by side."""
    return np.concatenate([columns[stratum] for stratum in strata], axis=-1)


def _resampled(
    contests: list[_Contests], strata: Mapping[Stratum, Floats], threshold: float, resamples: int, seed: int
) -> Floats:
    """The metrics in every resample, (G, M, S)."""
    sizes = [scores.size for scores in strata.values()]
    drawn = dict(zip(strata, draw(sizes, resamples, seed), strict=True))
    parts = []
    for block in blocks(sum(sizes), resamples):
        weights = {stratum: counts[block] for stratum, counts in drawn.items()}
        parts.append(np.stack([contest.metrics(threshold, weights) for contest in contests]))
    return np.concatenate(parts, axis=2)


def _intervals(values: Floats, resampled: Floats) -> dict[str, Interval]:
    """:param values: (M,) :param resampled: (M, S)"""
    return {name: Interval.of(float(values[index]), resampled[index]) for index, name in enumerate(METRICS)}


def _rates(table: ScoredTable, threshold: float, resamples: int, seed: int) -> tuple[Rate, ...]:
    scores = table.strata
    rates = []
    for stratum, images in Counter((row.source, row.label) for row in table.rows).items():
        known = scores.get(stratum, np.empty(0))
        rate = bootstrap_rate(known, threshold, seed, resamples) if known.size else None
        rates.append(Rate(*stratum, images, images - known.size, rate))
    return tuple(rates)
