"""The work of spai-run: detectors and images become rows and the record of the run."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

import msgspec

from spai_runtime.cli.check import remark
from spai_runtime.cli.commands import EXIT_SOME_ERRORS, say
from spai_runtime.cli.options import Decode, Form, Options
from spai_runtime.cli.progress import ShownProgress
from spai_runtime.cli.report import finish, report_of
from spai_runtime.cli.table import Table
from spai_runtime.cli.terminal import is_closed
from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError, OutputError
from spai_runtime.files.outputs import OutputFiles, refuse_inputs
from spai_runtime.files.result_file import ResultFile
from spai_runtime.files.rows import FILE_FORMATS, Columns
from spai_runtime.files.sinks import Sink, Stream, forget
from spai_runtime.files.sources import Sources, printable
from spai_runtime.fusion import Fusion, common_positive
from spai_runtime.images import FORMATS, UNTRUSTED_FORMATS
from spai_runtime.manifest import PLANS, Threshold
from spai_runtime.report.card import Card
from spai_runtime.scoring.image import Decode as DecodeOnGpu
from spai_runtime.scoring.pipeline import open_file, score_items
from spai_runtime.zoo import Wanted, exported

EXIT_SCORED = 0


def score(options: Options) -> int:
    """Do what the options say.

    :returns: EXIT_SCORED or EXIT_SOME_ERRORS
    :raises UserError: nothing could run
    """
    sources = Sources(options.inputs, options.split)
    written = dict.fromkeys(OutputFiles(options.output).all(), "--output") if options.output else {}
    refuse_inputs(written | ({options.report: "--report"} if options.report else {}), sources.files())
    with ExitStack() as stack:
        detectors = [stack.enter_context(detector) for detector in _load(options)]
        for line in _remarks(options, detectors):
            say(f"spai-run: {line}")
        total = sources.count()
        if not (options.engines or options.detectors):
            say(f"spai-run: {detectors[0].manifest.notice}")
        sink = stack.enter_context(_sink(options, detectors, sources.columns))
        if report := report_of(options, detectors, sink.columns.names, total):
            stack.enter_context(report)
        todo, labels = sink.skip(iter(sources), report.add_kept if report else forget)
        if sink.replaces:
            say(f"spai-run: {options.output} is there already; it is replaced when this run is complete")
        shown = options.output is not None and not options.quiet  # else rows are the progress
        progress = stack.enter_context(ShownProgress(total, labels.total(), visible=shown))
        results = score_items(
            detectors,
            todo,
            batch_size=options.batch_size,
            workers=options.workers,
            open_item=partial(open_file, formats=UNTRUSTED_FORMATS if options.untrusted else FORMATS),
            decode_on_gpu=_decoder(options, detectors),
        )
        for result in stack.enter_context(closing(results)):  # before the detectors, where a row cannot be written
            sink.write(result)
            if report:
                report.add(sink.columns.row_of(result), result.item.path, result.stamp, result.scores)
            progress.advance()
            labels[sink.columns.label_of(result)] += 1
        progress.close()
        sink.finish(**_record(options, detectors, labels))
        if report:
            finish(report, quiet=options.quiet)
        if not options.quiet and sys.stderr.isatty():
            say(f"spai-run: {_summary(options, detectors, labels)}")
    if labels["error"]:
        say(f"spai-run: {labels['error']} of {total} images could not be scored; the error column says why")
    return EXIT_SOME_ERRORS if labels["error"] else EXIT_SCORED


def _load(options: Options) -> Iterator[Detector]:
    """Load one detector after the other, so that the earlier ones are closed if one does not load."""
    threshold = None if options.fusion else options.threshold
    named = [exported(Wanted(name, options.accept_licence, options.quiet)) for name in options.detectors]
    for path in (*options.engines, *named) or (None,):
        yield Detector.load(
            path,
            device=options.device,
            backend=options.backend,
            precision=options.precision,
            threshold=threshold,
            untrusted=options.untrusted_engine,
        )


def _remarks(options: Options, detectors: Sequence[Detector]) -> Iterator[str]:
    """What a user must know of the plans that run: which ones `auto` has chosen, and which ones no GPU has scored."""
    for detector, path in zip(detectors, options.engines, strict=False):
        assert detector.artifact is not None, "it was loaded from a directory"
        if path.is_dir() and detector.artifact.kind in PLANS and options.backend is None:
            plan = path / detector.artifact.encoder.file
            yield f"auto takes {plan}, native code of whoever exported it; --backend onnxruntime takes a graph"
        if said := remark(detector, path):
            yield said


def _sink(options: Options, detectors: Sequence[Detector], own: Sequence[str]) -> Sink:
    """The place that rows go to; on a terminal the rows themselves show the progress."""
    names = [detector.manifest.name for detector in detectors] if options.fusion else ()
    columns = Columns(own, names, _fusion(options, detectors), options.spreadsheet)
    if options.output is not None:
        return ResultFile(options.output, columns, _identity(options, detectors), resume=options.resume)
    if is_closed(sys.stdout):
        raise OutputError("stdout is closed, and the rows would be lost: name a file with --output")
    form = options.form
    if form is Form.AUTO:
        form = Form.TABLE if sys.stdout.isatty() and not options.spreadsheet else Form.CSV
    table = partial(Table, columns, _threshold(options, detectors).value, detectors[0].manifest.positive)
    return Stream(sys.stdout, table() if form is Form.TABLE else FILE_FORMATS[form], columns)


def _threshold(options: Options, detectors: Sequence[Detector]) -> Threshold:
    """The threshold that decides labels: that of the one detector, or of the fusion."""
    return options.fusion.threshold if options.fusion else detectors[0].threshold


def _fusion(options: Options, detectors: Sequence[Detector]) -> Fusion | None:
    """The fusion that the options ask for. :raises EngineError: a high score means different things to the detectors"""
    if options.fusion is None:
        return None
    return replace(options.fusion, positive=common_positive([detector.manifest for detector in detectors]))


def _decoder(options: Options, detectors: Sequence[Detector]) -> DecodeOnGpu | None:
    if options.decode is Decode.PILLOW:
        return None
    from spai_runtime.engines.cuda.jpeg import JpegDecoder  # noqa: PLC0415  an extra

    devices = list(dict.fromkeys(detector.encoder.device for detector in detectors))
    if len(devices) > 1:
        raise EngineError(f"--decode nvimgcodec needs one GPU for all detectors, not {' and '.join(devices)}")
    return JpegDecoder(devices[0]).decode


def _identity(options: Options, detectors: Sequence[Detector]) -> dict[str, object]:
    """What the rows depend on; the record of a run begins with it."""
    rest = {
        "decode": options.decode.value,
        "untrusted": options.untrusted,
        "spreadsheet": options.spreadsheet,
    }
    if options.fusion is None:
        return {**_identity_of(detectors[0]), **rest}
    threshold = options.fusion.threshold
    fusion = {"rule": options.fusion.rule, "threshold": threshold.value, "threshold_source": threshold.source}
    return {"detectors": [_identity_of(detector) for detector in detectors], "fusion": fusion, **rest}


def _identity_of(detector: Detector) -> dict[str, object]:
    manifest, threshold, artifact = detector.manifest, detector.threshold, detector.artifact
    assert artifact is not None, "it was loaded from a directory"
    return {
        "detector": manifest.name,
        **({} if manifest.positive == "ai" else {"positive": manifest.positive}),
        "encoder_sha256": artifact.encoder.sha256,
        "head_sha256": artifact.head.sha256,
        **({} if detector.precision == artifact.precision else {"precision": detector.precision}),
        "threshold": threshold.value,
        "threshold_source": threshold.source,
        "calibration": json.loads(msgspec.json.encode(manifest.calibration)),
    }


def _record(options: Options, detectors: Sequence[Detector], labels: Counter[str]) -> dict[str, object]:
    """What the record of a run holds besides what the rows depend on."""
    engines = [detector.encoder for detector in detectors]
    ran: dict[str, object] = {"device": engines[0].device, "engine": engines[0].label}
    if options.fusion:
        ran = {"device": [engine.device for engine in engines], "engine": [engine.label for engine in engines]}
    cards = msgspec.to_builtins([Card.of(detector) for detector in detectors])
    return {"inputs": [*map(printable, options.inputs)], **ran, "labels": dict(labels), "cards": cards}


def _summary(options: Options, detectors: Sequence[Detector], labels: Counter[str]) -> str:
    names = dict.fromkeys([*(detector.manifest.positive for detector in detectors), "real", "error"])
    counts = ", ".join(f"{labels[name]} {name}" for name in names if labels[name])
    limit = _threshold(options, detectors)
    ran = dict.fromkeys(
        f"{detector.encoder.label}, {detector.precision}" for detector in detectors if detector.artifact
    )
    return f"{counts}; threshold {limit.value:g}: {limit.source}; {'; '.join(ran)}"
