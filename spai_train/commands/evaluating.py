"""What `evaluate` does, once its options are read: one detector, or several on the same images."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, say
from spai_train.commands.edges import writable
from spai_train.commands.selection import Selection
from spai_train.commands.subject import Subject
from spai_train.evaluation.published_table import Wanted
from spai_train.evaluation.reproduction import Reproduction

if TYPE_CHECKING:  # they need matplotlib, or are long to import
    from spai_train.evaluation.calibration import Calibrated
    from spai_train.evaluation.evaluate import Evaluation, Options
    from spai_train.evaluation.several import Together


@dataclass(frozen=True)
class Evaluating:
    """What is evaluated, on what, and where the results go.

    :param wanted: the published table that results stand beside; None for none
    """

    subject: Subject
    selection: Selection
    options: "Options"
    wanted: Wanted | None
    device: str
    output: Path

    def run(self) -> int:
        """Evaluates, and shows what was found. :returns: the exit code"""
        return _several(self) if self.subject.several else _one(self)

    def reproduction(self, row: str | None, found: "Evaluation") -> Reproduction | None:
        """:param row: a row of the published table; None where none is asked for"""
        if self.wanted is None or row is None:
            return None
        return Reproduction.of(self.wanted, row, found.measurements[0], self.selection.benchmark or "")


def _one(work: Evaluating) -> int:
    from spai_train.evaluation import results, summary  # noqa: PLC0415
    from spai_train.evaluation.evaluate import evaluate  # noqa: PLC0415

    (loading,) = work.subject.load(work.device)
    with loading as loaded:
        row = work.wanted.row_of(loaded.manifest.name, loaded.manifest.detector) if work.wanted else None
        images = work.selection.images(work.options)
        evaluation = evaluate(loaded, images, work.options, work.subject.digests(loaded))
    if evaluation.calibrated:
        (engine,) = work.subject.engines
        with writable(engine):
            evaluation.calibrated.write(engine if engine.is_dir() else engine.parent)
    reproduction = work.reproduction(row, evaluation)
    with writable(work.output):
        results.write(evaluation, work.output, reproduction)
    summary.show(evaluation)
    if reproduction:
        summary.show_reproduction(reproduction)
    return _remarks(work, evaluation, evaluation)


def _several(work: Evaluating) -> int:
    from spai_train.evaluation import several_results, summary  # noqa: PLC0415
    from spai_train.evaluation.several import evaluate_together, names_of  # noqa: PLC0415

    with ExitStack() as stack:
        detectors = [stack.enter_context(detector) for detector in work.subject.load(work.device)]
        rows = (
            work.wanted.rows_of([(one.manifest.name, one.manifest.detector) for one in detectors])
            if work.wanted
            else []
        )
        files = [work.subject.digests(detector) for detector in detectors]
        images = work.selection.images(work.options)
        together = evaluate_together(detectors, images, work.options, files, work.subject.fused_threshold)
        names = names_of(detectors)
    found = zip(names, rows, together.detectors, strict=True) if rows else ()
    all_of_them = {name: work.reproduction(row, one) for name, row, one in found}
    reproductions = {name: one for name, one in all_of_them.items() if one}
    with writable(work.output):
        several_results.write(together, work.output, reproductions)
    summary.show_together(together)
    for reproduction in reproductions.values():
        summary.show_reproduction(reproduction)
    return _remarks(work, together, together.detectors[0])


def _remarks(work: Evaluating, found: "Evaluation | Together", first: "Evaluation") -> int:
    """Prints on stderr what a reader of the numbers must know. :returns: the exit code"""
    for line in work.selection.remarks(work.wanted):
        say(f"spai-train: {line}")
    if not first.measurements[0].metrics:
        say("spai-train: AUC and the other metrics need scored images of both classes, so they are left out")
    if first.calibrated:
        _say_calibrated(first.calibrated)
    if first.refusal:
        say(f"spai-train: not calibrated, detector.json is as it was: {first.refusal}")
    if found.errors:
        say(f"spai-train: {found.errors} of {found.images} images could not be scored; scores.csv says why")
    return EXIT_SOME_ERRORS if found.errors or first.refusal else 0


def _say_calibrated(calibrated: "Calibrated") -> None:
    say("spai-train: these are metrics of the images that it was calibrated on; another split would be a fair test")
    if calibrated.found is None:
        return
    threshold = f"the threshold {calibrated.threshold.value:.4g}"
    say(f"spai-train: {threshold} finds {calibrated.found:.1%} of the AI-generated images that it was calibrated on")
    if calibrated.finds_little:
        say(
            f"spai-train: {threshold} is so high that it finds almost nothing: calibrate on more real images, whose "
            "margin is smaller, or to a higher rate of false positives"
        )
