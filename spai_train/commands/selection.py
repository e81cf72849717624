"""The images that `evaluate` measures: those of tables, or those of a benchmark."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spai_runtime.errors import UserError
from spai_runtime.manifest import Threshold
from spai_train.evaluation.benchmark import Tree, load
from spai_train.evaluation.preparation import AS_THEY_ARE, Preparation
from spai_train.evaluation.protocol import Pairs, Protocol
from spai_train.evaluation.published_table import Wanted

if TYPE_CHECKING:
    from spai_train.evaluation.evaluate import Images, Options


@dataclass(frozen=True)
class Selection:
    """The images that the user names, by tables or by a benchmark.

    :param benchmark: the benchmark's name, or None for tables
    :param paths: the tables, or the folder of the benchmark's data
    :param given: the protocol that is asked for; None takes the benchmark's, or pooled
    """

    benchmark: str | None
    paths: tuple[Path, ...]
    root: Path | None
    store: Path | None
    given: Protocol | None

    def __post_init__(self) -> None:
        """:raises UserError: something is given that does not go with a benchmark"""
        if self.benchmark is None:
            return
        load(self.benchmark)
        if len(self.paths) != 1 or not self.paths[0].is_dir():
            raise UserError(f"--benchmark {self.benchmark} takes one folder: {load(self.benchmark).root}")
        if self.root or self.store:
            raise UserError("--benchmark names the images by itself: leave --root and --store out")

    @cached_property
    def tree(self) -> Tree | None:
        """The benchmark's images."""
        return Tree(self.benchmark, load(self.benchmark), self.paths[0]) if self.benchmark else None

    @property
    def protocol(self) -> Protocol | Pairs:
        """Which real images a generator is measured against."""
        return self.given or (self.tree.benchmark.pairs if self.tree else Protocol.POOLED)

    @property
    def preparation(self) -> Preparation:
        """What is done to the images before they are measured."""
        return self.tree.benchmark.preparation if self.tree else AS_THEY_ARE

    @property
    def threshold(self) -> Threshold | None:
        """The benchmark's threshold; None leaves the detector's own."""
        if self.tree is None or self.tree.benchmark.threshold is None:
            return None
        return Threshold(self.tree.benchmark.threshold, f"the protocol of the benchmark {self.benchmark}")

    def images(self, options: "Options") -> "Images":
        """:raises UserError: no image is there, or a table cannot be used"""
        from spai_train.evaluation.evaluate import Images  # noqa: PLC0415  --help must work without matplotlib

        return Images.in_tree(self.tree, options) if self.tree else Images.of(self.paths, options)

    def remarks(self, wanted: Wanted | None) -> Iterator[str]:
        """What a reader of the numbers must know. :param wanted: the published table that they stand beside"""
        if self.tree:
            yield f"{self.benchmark} is reported in {' and '.join(self.tree.benchmark.metrics)}"
            if self.tree.missing:
                yield f"not in {self.paths[0]}, so left out of {self.benchmark}: {', '.join(self.tree.missing)}"
            if short := self.tree.short:
                fewer = ", ".join(f"{source} ({images})" for source, images in short.items())
                first = self.tree.benchmark.first
                yield f"{self.benchmark} takes {first} images of a source, and fewer are there of {fewer}"
            if said := self.preparation.described:
                yield f"{self.benchmark} compresses its images first: {said}"
            if self.tree.benchmark.note:
                yield f"{self.benchmark}: {self.tree.benchmark.note}"
        if wanted and wanted.table.benchmark and wanted.table.benchmark != self.benchmark:
            theirs = wanted.table.benchmark
            yield (
                f"the figures of {wanted.name} are of the benchmark {theirs}, whose protocol --benchmark {theirs} "
                "follows; these images and this protocol may be others"
            )
