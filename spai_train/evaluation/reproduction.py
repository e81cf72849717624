"""Published figures beside those that were measured here."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spai_train.data.table import GENERATED
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.protocol import Measurement
from spai_train.evaluation.published_table import MEAN, Wanted


@dataclass(frozen=True)
class Reproduced:
    """One published figure, and the one that was measured here.

    :param generator: the generator's name in the published table, or `mean`
    :param source: the source's name in the images' table
    :param published: a share, not percent
    """

    metric: str
    generator: str
    source: str
    published: float
    here: Interval

    @property
    def difference(self) -> float:
        """The figure here less the published one: above 0 where it is higher here."""
        return self.here.value - self.published


@dataclass(frozen=True)
class Reproduction:
    """The figures of a row of a table whose generators are here.

    :param only_published: generators of the row that the images lack
    :param only_here: generators of the images that the row lacks
    """

    wanted: Wanted
    row: str
    figures: tuple[Reproduced, ...]
    only_published: tuple[str, ...]
    only_here: tuple[str, ...]

    @classmethod
    def of(cls, wanted: Wanted, row: str, found: Measurement, benchmark: str = "") -> "Reproduction":
        """:param found: the evaluation, of which the images that are measured first count
        :param benchmark: the benchmark that the images belong to, or ""
        """
        table = wanted.table
        if table.of_benchmarks:
            here = {benchmark: found.mean} if benchmark and found.mean else {}
        else:
            here = {rate.source: found.metrics_of(rate) for rate in found.rates if rate.label == GENERATED}
            here = {source: metrics for source, metrics in here.items() if metrics}
        names = {
            generator: source
            for generator in table.generators(row)
            for source in here
            if table.is_called(generator, source)
        }
        only_published = tuple(name for name in table.generators(row) if name not in names)
        only_here = tuple(source for source in here if source not in names.values())
        whole = not (only_published or only_here or table.of_benchmarks)  # else it is the mean of others
        figures = _figures(wanted, row, names, {**here, **({MEAN: found.mean} if whole else {})})
        return cls(wanted, row, tuple(figures), only_published, only_here)

    def report(self) -> dict[str, Any]:
        """What metrics.json says of the reproduction; figures are shares, not percent."""
        table = self.wanted.table
        return {
            "table": self.wanted.name,
            "row": self.row,
            "source": table.source,
            "read_in": table.read_in,
            "protocol": table.protocol,
            "figures": [{**asdict(one), "difference": one.difference} for one in self.figures],
            "only_published": list(self.only_published),
            "only_here": list(self.only_here),
        }


def _figures(
    wanted: Wanted, row: str, names: Mapping[str, str], here: Mapping[str, Mapping[str, Interval]]
) -> Iterator[Reproduced]:
    for metric, rows in wanted.table.values.items():
        for generator, percent in rows.get(row, {}).items():
            source = MEAN if generator == MEAN else names.get(generator, "")
            if source in here:
                yield Reproduced(metric, generator, source, round(percent / 100, 6), here[source][metric])
