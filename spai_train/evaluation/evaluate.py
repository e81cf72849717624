"""Evaluation: tables of labelled images → scores → the metrics of a protocol, perhaps after a calibration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spai_runtime.cli.progress import shown
from spai_runtime.detector import Detector
from spai_runtime.files.digest import sha256_of
from spai_runtime.files.sources import printable
from spai_runtime.manifest import Threshold
from spai_runtime.results import Result
from spai_train.data.perturb import NONE, Perturbation
from spai_train.data.stores import Store, open_store
from spai_train.data.table import Row, TableError, read_tables
from spai_train.evaluation.benchmark import Tree
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.calibration import Calibrated, CalibrationError, Request, calibrate_on
from spai_train.evaluation.preparation import AS_THEY_ARE, Preparation
from spai_train.evaluation.protocol import Measurement, Pairs, Protocol, measure
from spai_train.evaluation.scored import ScoredTable, score_rows
from spai_train.evaluation.ten_crop import Reduction, with_ten_crops


@dataclass(frozen=True)
class Options:
    """How a detector is evaluated.

    :param split: the split whose images are taken; a table without splits is kept whole
    :param root: the folder that the names of images are relative to; None takes each table's folder
    :param store: a `.lmdb`, a `.tar` or a folder of them that holds the images; None reads files
    :param perturbations: the images are scored once more under each of these
    :param resize_to: length that every image's shorter side gets after its perturbation; None leaves it
    :param ten_crop: the logit of ten crops that counts; None takes the detector's own views
    :param request: what is calibrated on the images as they are; None for nothing
    :param preparation: what is done to the images first, before each perturbation; a benchmark may want JPEGs
    :param threshold: the benchmark's threshold; None takes the detector's
    """

    split: str = "test"
    root: Path | None = None
    store: Path | None = None
    protocol: Protocol | Pairs = Protocol.POOLED
    perturbations: tuple[Perturbation, ...] = ()
    request: Request | None = None
    resamples: int = 1000
    seed: int = 0
    batch_size: int | None = None
    workers: int | None = None
    resize_to: int | None = None
    ten_crop: Reduction | None = None
    preparation: Preparation = AS_THEY_ARE
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation has found.

    :param detector: its name, its method, and the sha256 of its files
    :param files: the sha256 of each table's file
    :param tables, measurements: those of the images as they are, and then those under each perturbation
    :param positive: what the detector says above its threshold
    :param calibrated: what was fitted to the first of the tables; the calibrated scores were measured
    :param refusal: why nothing could be calibrated, in a sentence; "" where something was, or nothing was asked for
    """

    options: Options
    detector: Mapping[str, object]
    files: dict[str, str]
    threshold: Threshold
    tables: tuple[ScoredTable, ...]
    measurements: tuple[Measurement, ...]
    calibrated: Calibrated | None
    positive: str = "ai"
    refusal: str = ""

    @property
    def images(self) -> int:
        """How many images there are, scored or not, counted under each perturbation again."""
        return sum(len(table.rows) for table in self.tables)

    @property
    def errors(self) -> int:
        """How many of them could not be scored."""
        return self.images - sum(int(table.scored.sum()) for table in self.tables)

    @property
    def means(self) -> list[tuple[Perturbation, dict[str, Interval]]]:
        """The metrics averaged over the generators, of each perturbation that has any."""
        pairs = zip(self.tables, self.measurements, strict=True)
        return [(table.perturbation, found.mean) for table, found in pairs if found.mean]


def evaluate(detector: Detector, images: "Images", options: Options, files: Mapping[str, str]) -> Evaluation:
    """Scores the images and measures the detector.

    :param files: the files that the detector was loaded from, with their sha256
    """
    (tables,) = score([detector], images, options)
    calibrated, threshold, refusal = None, options.threshold or detector.threshold, ""
    if options.request:
        try:
            calibrated = calibrate_on(tables[0], options.request, detector.manifest.calibration, images.name)
            tables = [table.calibrated(calibrated.calibration) for table in tables]
            threshold = calibrated.threshold
        except CalibrationError as error:  # what was scored is worth writing all the same
            refusal = str(error)
    found = evaluation_of(describe(detector, files), tables, threshold, detector.manifest.positive, images, options)
    return replace(found, calibrated=calibrated, refusal=refusal)


@dataclass(frozen=True)
class Images:
    """The images that are scored.

    :param files: the sha256 of each table's file
    :param name: what the images are called where a calibration says what it was fitted to
    """

    rows: Sequence[Row]
    store: Store
    files: dict[str, str]
    name: str

    @classmethod
    def in_tree(cls, tree: Tree, options: Options) -> "Images":
        """:raises UserError: the benchmark's images are not there"""
        return cls(tree.rows, open_store(options.store), {f"benchmark {tree.name}": tree.digest}, tree.name)

    @classmethod
    def of(cls, paths: Sequence[Path], options: Options) -> "Images":
        """:param paths: the paths of tables
        :raises UserError: a table cannot be used, or none of its images is there
        """
        rows = read_tables(paths, options.split, options.root)
        store = open_store(options.store)
        _check_there(rows, store, paths)
        digests = {printable(path): sha256_of(path) for path in paths}
        return cls(rows, store, digests, _name(rows, paths, options.split))


def score(detectors: Sequence[Detector], images: Images, options: Options) -> list[list[ScoredTable]]:
    """Scores the images; each is decoded once under each perturbation, however many detectors look at it.

    :returns: for each detector the tables of the images as they are, and then those under each perturbation
    :raises UserError: ten crops are asked for, and a detector does not look at them
    """
    if options.ten_crop:
        detectors = [with_ten_crops(detector, options.ten_crop) for detector in detectors]
    kinds = NONE, *options.perturbations
    scored = [_scored(detectors, images.rows, images.store, perturbation, options) for perturbation in kinds]
    return [[*tables] for tables in zip(*scored, strict=True)]


def describe(detector: Detector, files: Mapping[str, str]) -> dict[str, object]:
    """What a report says of a detector. :param files: the files that it was loaded from"""
    return {"name": detector.manifest.name, "method": detector.manifest.detector, "sha256": dict(files)}


def evaluation_of(
    about: Mapping[str, object],
    tables: Sequence[ScoredTable],
    threshold: Threshold,
    positive: str,
    images: Images,
    options: Options,
) -> Evaluation:
    """Measures what was scored. :param about: the detector, see `describe`"""
    measurements = [
        measure(table, options.protocol, threshold.value, options.resamples, options.seed) for table in tables
    ]
    return Evaluation(options, about, images.files, threshold, tuple(tables), tuple(measurements), None, positive)


def _scored(
    detectors: Sequence[Detector], rows: Sequence[Row], store: Store, perturbation: Perturbation, options: Options
) -> list[ScoredTable]:
    def watch(results: Iterator[Result]) -> Iterator[Result]:
        return shown(results, len(rows))

    return score_rows(
        detectors,
        rows,
        perturbation,
        preparation=options.preparation,
        store=store,
        seed=options.seed,
        resize_to=options.resize_to,
        batch_size=options.batch_size,
        workers=options.workers,
        watch=watch,
    )


def _name(rows: Sequence[Row], paths: Sequence[Path], split: str) -> str:
    """What the images are called where a calibration says what it was fitted to."""
    names = ", ".join(printable(path.name) for path in paths)
    return f"the split {split} of {names}" if any(row.split for row in rows) else names


def _check_there(rows: Sequence[Row], store: Store, paths: Sequence[Path]) -> None:
    """Refuses rows whose images are all missing: the folder is wrong. One missing image is an error in its row."""
    if len(store.missing(rows)) == len(rows):
        names = ", ".join(map(printable, paths))
        raise TableError(
            f"none of the {len(rows)} images of {names} is there, {printable(rows[0].path)} for one; --root names the "
            "folder that they lie in"
        )
