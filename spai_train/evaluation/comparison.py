"""Several detectors in one table: what `evaluate` found of each, or of all at once, on the same images."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from spai_runtime.errors import UserError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.text import excerpt, visible
from spai_train.evaluation.bootstrap import Interval

REPORT = "metrics.json"  # what `evaluate` writes
MEAN = "mean"
COLUMNS = ("detector", "method", "threshold", "perturbation", "source", "metric", "value", "low", "high")
LARGEST = 64 << 20  # bytes of a report

Metrics = dict[str, Interval]


@dataclass(frozen=True)
class Source:
    """:param metrics: those of a generator; {} for real images, which are not told from themselves"""

    source: str
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """:param mean: the mean metrics over the sources; {} where they are not defined"""

    perturbation: str
    sources: list[Source]
    mean: Metrics


@dataclass(frozen=True)
class _Detector:
    name: str
    method: str


@dataclass(frozen=True)
class _Threshold:
    value: float


@dataclass(frozen=True)
class _Protocol:
    name: str


@dataclass(frozen=True)
class Report:
    """The part of a `metrics.json` that is compared.

    :param tables: a table's name → its sha256
    """

    detector: _Detector
    threshold: _Threshold
    tables: dict[str, str]
    split: str
    resize_to: int | None
    protocol: _Protocol
    results: Annotated[list[Result], Meta(min_length=1)]

    @property
    def images(self) -> tuple[object, ...]:
        """What differs between reports on other images, or on images that were measured against others."""
        return sorted(self.tables.values()), self.split, self.resize_to, self.protocol.name


@dataclass(frozen=True)
class _Several:
    """A `metrics.json` of several detectors; that of one detector has no reports."""

    reports: Annotated[list[Report], Meta(min_length=1)] | None = None


@dataclass(frozen=True)
class Comparison:
    """:param names: the detectors' names, each different, in the order of `reports`"""

    names: Sequence[str]
    reports: Sequence[Report]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> "Comparison":
        """:param folders: folders that `evaluate` wrote, each for one detector or for several
        :raises UserError: one cannot be read, or has other images, another split or protocol than the first
        """
        found = [(folder, report) for folder in folders for report in _read(folder)]
        reports = [report for _, report in found]
        for folder, report in found:
            if report.images != reports[0].images:
                raise UserError(
                    f"{folder} was measured on other images, or by another protocol, than {folders[0]}: evaluate both "
                    "on the same tables, with the same --split, --resize-to and --protocol"
                )
        return cls(_apart([report.detector.name for report in reports]), reports)

    def rows(self, metric: str) -> Iterator[tuple[str, list[Interval | None]]]:
        """The mean and then each source of the images as they are: its name, and the metric of each detector."""
        plain = [report.results[0] for report in self.reports]
        yield MEAN, [result.mean.get(metric) for result in plain]
        for source in [source.source for source in plain[0].sources if source.metrics]:
            of_one = [{one.source: one.metrics for one in result.sources} for result in plain]
            yield source, [sources.get(source, {}).get(metric) for sources in of_one]

    def write(self, path: Path) -> None:
        """Writes all metrics, also those under perturbations, with one number a line.

        :raises OSError: the file cannot be written
        """
        with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *self._lines()])

    def _lines(self) -> Iterator[tuple[Any, ...]]:
        for name, report in zip(self.names, self.reports, strict=True):
            about = name, report.detector.method, report.threshold.value
            for result in report.results:
                for source in (*result.sources, Source(MEAN, result.mean)):
                    for metric, interval in source.metrics.items():
                        yield (*about, result.perturbation, source.source, metric, *asdict(interval).values())


def _read(folder: Path) -> list[Report]:
    path = folder / REPORT if folder.is_dir() else folder
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{path} is not what evaluate writes: it has more than {LARGEST >> 20} MiB")
        several = msgspec.json.decode(content, type=_Several).reports
        return [msgspec.json.decode(content, type=Report)] if several is None else several
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name folders that `spai-train evaluate` wrote"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not what evaluate writes: {excerpt(str(error))}") from error


def _apart(names: Sequence[str]) -> list[str]:
    """The names, each different: one that comes again gets a number."""
    seen: dict[str, int] = {}
    found = []
    for name in map(visible, names):
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
