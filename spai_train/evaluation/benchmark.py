"""Benchmarks: which images are real, which generator made the others, how they are measured; each is a data file."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from spai_runtime.files.sources import printable
from spai_train.data.layouts import LayoutError, images_below
from spai_train.data.perturb import Kind, Perturbation
from spai_train.data.table import GENERATED, REAL, Row, read_tables
from spai_train.evaluation.package_data import names_in, read_data
from spai_train.evaluation.preparation import AS_THEY_ARE, Images, Preparation
from spai_train.evaluation.protocol import Pairs, Protocol

FOLDER = Path(__file__).parent / "benchmarks"
NAMES = names_in(FOLDER)


@dataclass(frozen=True)
class Benchmark:
    """The protocol of a benchmark.

    :param source: where its protocol is said
    :param root: the folder that a user names, in words
    :param metrics: the metrics that results are reported in
    :param tables: patterns of CSVs in the root that list the images; without any, the folders tell them
    :param real, generated: a source → patterns of its folders below the root, of which the first that is there counts
    :param against: a pattern of generators → the real sources that they are told from; a generator with real images of
        its own is told from these, and any other by `pairing`
    :param threshold: labels are set by it; None takes the detector's own
    :param jpeg: quality that images are compressed to first; None does not compress them
    :param jpeg_of: which images are compressed
    :param first: how many images of a source and class are taken, in the order of their names; None takes all
    :param note: what else must be known of it, or ""
    """

    title: str
    source: str
    root: str
    metrics: list[str]
    tables: list[str] = field(default_factory=list)
    real: dict[str, list[str]] = field(default_factory=dict)
    generated: dict[str, list[str]] = field(default_factory=dict)
    against: dict[str, list[str]] = field(default_factory=dict)
    pairing: Protocol = Protocol.POOLED
    threshold: float | None = None
    jpeg: int | None = None
    jpeg_of: Images = "all"
    first: int | None = None
    note: str = ""

    @property
    def pairs(self) -> Protocol | Pairs:
        """Which real images a generator is measured against."""
        return Pairs.of(self.pairing, self.against) if self.against else self.pairing

    @property
    def preparation(self) -> Preparation:
        """What is done to the benchmark's images before they are measured."""
        if self.jpeg is None:
            return AS_THEY_ARE
        return Preparation(Perturbation(Kind.JPEG, self.jpeg), self.jpeg_of)


@dataclass(frozen=True)
class Tree:
    """A benchmark's images on disk. :param root: the folder that the user names"""

    name: str
    benchmark: Benchmark
    root: Path

    @cached_property
    def rows(self) -> list[Row]:
        """The benchmark's images.

        :raises UserError: no images are there, or those of one class alone
        """
        rows = list(self._of_tables() if self.benchmark.tables else self._of_folders())
        if len({row.label for row in rows}) < 2:
            found = "no images" if not rows else "images of one class alone"
            raise LayoutError(f"{printable(self.root)} has {found} of {self.name}: name {self.benchmark.root}")
        return rows

    @cached_property
    def missing(self) -> list[str]:
        """Sources that have no images here."""
        found = {(row.source, row.label) for row in self.rows}
        wanted = [(source, REAL) for source in self.benchmark.real]
        wanted += [(source, GENERATED) for source in self.benchmark.generated]
        return list(dict.fromkeys(source for source, label in wanted if (source, label) not in found))

    @property
    def short(self) -> dict[str, int]:
        """How many images there are of each source that has fewer here than the protocol takes."""
        found = Counter((row.source, row.label) for row in self.rows)
        return {source: images for (source, _), images in found.items() if images < (self.benchmark.first or 0)}

    @property
    def digest(self) -> str:
        """The sha256 of the list of images, which tells whether two evaluations had the same."""
        lines = (f"{row.name}\0{row.label}\0{row.source}\n" for row in self.rows)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def _of_tables(self) -> Iterator[Row]:
        for pattern in self.benchmark.tables:
            yield from read_tables(sorted(self.root.glob(pattern)), "test")

    def _of_folders(self) -> Iterator[Row]:
        for label, sources in ((REAL, self.benchmark.real), (GENERATED, self.benchmark.generated)):
            for source, patterns in sources.items():
                for path in islice(self._images(patterns), self.benchmark.first):
                    yield Row(path.relative_to(self.root).as_posix(), path, label, "test", source)

    def _images(self, patterns: list[str]) -> Iterator[Path]:
        """The images of all folders that match the first pattern that any folder matches."""
        for pattern in patterns:
            if folders := sorted(folder for folder in self.root.glob(pattern) if folder.is_dir()):
                for folder in folders:
                    yield from images_below(folder)
                return


def load(name: str) -> Benchmark:
    """:raises UserError: there is none of that name"""
    return read_data(FOLDER, name, "benchmark", Benchmark)
