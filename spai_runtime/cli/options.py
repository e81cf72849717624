"""The options of one call of spai-run."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spai_runtime.errors import EngineError, OutputError, SourceError
from spai_runtime.fusion import UNCALIBRATED, Fusion, Rule
from spai_runtime.manifest import Precision, Threshold
from spai_runtime.report.files import SUFFIXES


class Form(StrEnum):
    """The format of rows on stdout."""

    AUTO = "auto"
    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


class Decode(StrEnum):
    """The decoder of JPEGs."""

    PILLOW = "pillow"
    NVIMGCODEC = "nvimgcodec"


@dataclass(frozen=True)
class Options:
    """One call of spai-run; the help of each option says what it means."""

    inputs: tuple[str, ...]
    engines: tuple[Path, ...]
    detectors: tuple[str, ...]
    accept_licence: bool
    fuse: Rule | None
    output: Path | None
    form: Form
    device: str
    backend: str | None
    precision: Precision | None
    untrusted_engine: bool
    decode: Decode
    batch_size: int | None
    workers: int | None
    threshold: float | None
    split: str | None
    resume: bool
    untrusted: bool
    spreadsheet: bool
    quiet: bool
    check: bool = False
    explain: bool = False
    report: Path | None = None
    from_rows: Path | None = None

    def __post_init__(self) -> None:
        """Check the options. :raises UserError: some of them do not go together"""
        if self.check and not self.engines:
            raise EngineError("--check compares an exported detector with its graphs: name it with --engine")
        if self.check and (self.output or self.untrusted_engine):
            raise EngineError("--check writes no rows and runs plans: leave --output and --untrusted-engine out")
        if self.explain and (self.inputs or self.output or self.check or self.detectors):
            raise EngineError("--explain scores nothing: leave INPUT, --output, --check and --detector out")
        if self.report and self.report.suffix.lower() not in SUFFIXES:
            raise OutputError(f"cannot write the report {self.report}: name it .html")
        if self.report and (self.check or self.explain):
            raise OutputError("--report shows scores: leave --check and --explain out")
        if self.from_rows and not self.report:
            raise OutputError("--from-rows makes a report of rows that are there: name the page with --report")
        if self.from_rows and (self.inputs or self.output or self.engines or self.detectors):
            raise SourceError("--from-rows scores nothing: leave INPUT, --output, --engine and --detector out")
        if not (self.inputs or self.check or self.explain or self.from_rows):
            raise SourceError("there is nothing to score: name images, folders, globs, a .csv or a .txt as INPUT")
        if self.resume and self.output is None:
            raise OutputError("--resume goes on with a file: name it with --output")
        if self.spreadsheet and not self._writes_csv:
            raise OutputError("--spreadsheet guards the cells of CSV: give --format csv, or name a .csv with --output")
        if self.fuse and self._looking < 2:
            raise EngineError("--fuse makes one score of several: give --engine or --detector more than once")
        if self.accept_licence and not self.detectors:
            raise EngineError("--accept-licence is for weights that --detector gets: name one, or leave it out")

    @property
    def _looking(self) -> int:
        """The number of detectors that look at each image; the demo detector is not counted."""
        return len(self.engines) + len(self.detectors)

    @property
    def _writes_csv(self) -> bool:
        if self.output is not None:
            return self.output.suffix.lower() == ".csv"
        return self.form in (Form.AUTO, Form.CSV)

    @property
    def fusion(self) -> Fusion | None:
        """The rule that makes one score of those of several detectors."""
        if self._looking < 2:
            return None
        threshold = UNCALIBRATED if self.threshold is None else Threshold.given(self.threshold)
        return Fusion(self.fuse or Rule.SOFT_OR, threshold)
