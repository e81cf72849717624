"""spai-run --report writes the results of a run as pages for people; it also takes the rows of an earlier run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from spai_runtime.cli.commands import say
from spai_runtime.cli.options import Options
from spai_runtime.cli.progress import ShownProgress
from spai_runtime.detector import Detector
from spai_runtime.files.saved import SavedRows
from spai_runtime.files.sources import printable
from spai_runtime.files.spreadsheet import unguarded
from spai_runtime.images import FORMATS, UNTRUSTED_FORMATS
from spai_runtime.report.card import Card, Fused, cards_of
from spai_runtime.report.files import PAGE_IMAGES
from spai_runtime.report.roles import Roles

if TYPE_CHECKING:
    from spai_runtime.report.report import Report


def report_of(options: Options, detectors: Sequence[Detector], columns: Sequence[str], total: int) -> "Report | None":
    """The report that the rows of a run go into, if the user asked for one.

    :param columns: the names of all columns of the rows
    :param total: number of images in the run
    """
    if options.report is None:
        return None
    from spai_runtime.report.report import Report  # noqa: PLC0415  most runs start without jinja2

    cards = [Card.of(detector) for detector in detectors]
    formats = UNTRUSTED_FORMATS if options.untrusted else FORMATS
    return Report(
        options.report, columns, cards, total=total, fused=_fused(options), inputs=options.inputs, formats=formats
    )


def report_from_rows(options: Options) -> int:
    """Make the report of rows that exist already, and score nothing.

    :returns: 0
    :raises UserError: the file has no such rows, or the report cannot be written
    """
    from spai_runtime.report.report import Report  # noqa: PLC0415

    assert options.from_rows is not None
    assert options.report is not None
    rows = SavedRows(options.from_rows)
    run, inputs = rows.run, rows.record.get("inputs", [])
    with (
        Report(
            options.report,
            rows.names,
            cards_of(rows.record, Roles.of(rows.names).detectors),
            total=rows.count,
            fused=_saved_fusion(run),
            inputs=[str(name) for name in inputs] if isinstance(inputs, list) else [],
            formats=UNTRUSTED_FORMATS if run.get("untrusted") or options.untrusted else FORMATS,
        ) as report,
        ShownProgress(rows.count, visible=not options.quiet, what="drawing") as progress,
    ):
        for row, stamp in rows:
            name = str(row["path"])
            report.add(row, Path(unguarded(name) if run.get("spreadsheet") else name), stamp)
            progress.advance()
        progress.close()
        finish(report, quiet=options.quiet)
    return 0


def finish(report: "Report", *, quiet: bool) -> None:
    """Write the pages, and say what was written."""
    pages = report.finish()
    size = sum(page.stat().st_size for page in pages) / 1e6
    names = " and ".join({printable(pages[0]): None, printable(pages[-1]): None})
    several = f", {len(pages)} pages of at most {PAGE_IMAGES:,} images" if len(pages) > 1 else ""
    if not quiet:
        say(f"spai-run: the report is {names}{several}, {size:.1f} MB")


def _fused(options: Options) -> Fused | None:
    if options.fusion is None:
        return None
    threshold = options.fusion.threshold
    return Fused(options.fusion.rule, threshold.value, threshold.source)


def _saved_fusion(run: Mapping[str, Any]) -> Fused | None:
    try:
        return msgspec.convert(run.get("fusion"), Fused | None)
    except msgspec.ValidationError:
        return None
