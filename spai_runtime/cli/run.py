"""spai-run: scores images of any size with an exported detector."""

import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from spai_runtime.cli.commands import EXIT_SOME_ERRORS, VerboseOption, VersionOption, execute, say
from spai_runtime.cli.progress import shown
from spai_runtime.cli.table import Table
from spai_runtime.detector import Detector
from spai_runtime.errors import OutputError
from spai_runtime.files.rows import FORMATS, Columns
from spai_runtime.files.sinks import ResultFile, Stream
from spai_runtime.files.sources import Item, Sources
from spai_runtime.results import Result
from spai_runtime.scoring.pipeline import score_items

EXIT_SCORED = 0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Form(StrEnum):
    """How rows look on stdout."""

    AUTO = "auto"
    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


class Decode(StrEnum):
    """What decodes JPEGs."""

    PILLOW = "pillow"
    NVIMGCODEC = "nvimgcodec"


@dataclass(frozen=True)
class Options:
    """One call of spai-run; the command's options say what each means."""

    inputs: tuple[str, ...]
    engine: Path | None
    output: Path | None
    form: Form
    device: str
    decode: Decode
    batch_size: int | None
    workers: int | None
    threshold: float | None
    split: str | None
    resume: bool
    quiet: bool


@app.command(
    epilog="Exit code: 0 all images scored; 3 some rows are errors; 2 usage, or nothing could run. "
    "Columns: a CSV input's own, then path, score, logit, label, width, height, views, error. "
    "score is the probability that the image is AI-generated; label is `ai` where score > threshold, else `real`."
)
def run(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Images, folders (searched recursively), globs, a .csv (`image[,class,split]` or `filename[,typ]`, "
            "paths relative to it) or a .txt (a path a line).",
        ),
    ],
    engine: Annotated[
        Path | None,
        typer.Option(
            help="Directory that spai-export wrote, or a graph in it (.onnx, .plan), which then runs and no other. "
            "Left out: the demo detector."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write, .csv or .jsonl, with a .run.json beside it. Left out: stdout.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="Of stdout; auto is a table on a terminal, CSV in a pipe.")
    ] = Form.AUTO,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda:0, or several GPUs, cuda:0,1; auto is the best that loads: TensorRT, ONNX Runtime on CUDA, "
            "ONNX Runtime on the CPU. On a terminal the summary says which; with --output, the .run.json too."
        ),
    ] = "auto",
    decode: Annotated[
        Decode,
        typer.Option(help="What decodes JPEGs: Pillow, or nvImageCodec on the GPU (one GPU; scores may move)."),
    ] = Decode.PILLOW,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Views that the encoder is given at once. Left out: as suits the engine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads. Left out: one a core, at most 8 (32 with a GPU).")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For the label. Left out: that of detector.json.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Keep the rows of a CSV input whose `split` is this.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run of the same --output stopped.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary on stderr.")] = False,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
    version: VersionOption = False,  # noqa: ARG001
) -> int:
    """Tell AI-generated images from real ones, at any resolution."""
    return score(
        Options(
            tuple(inputs), engine, output, form, device, decode, batch_size, workers, threshold, split, resume, quiet
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # a decoder's remarks on a file that it decodes
    return execute(app, "spai-run", arguments)


def score(options: Options) -> int:
    """Does what the options say.

    :returns: EXIT_SCORED or EXIT_SOME_ERRORS
    :raises UserError: nothing could run
    """
    if options.resume and options.output is None:
        raise OutputError("--resume goes on with a file: name it with --output")
    sources = Sources(options.inputs, options.split)
    with Detector.load(options.engine, device=options.device, threshold=options.threshold) as detector:
        total = sources.count()
        if options.engine is None:
            say(f"spai-run: {detector.manifest.notice}")
        labels = (_to_stdout if options.output is None else _to_file)(detector, sources, total, options)
        if not options.quiet and sys.stderr.isatty():
            say(f"spai-run: {_summary(detector, labels)}")
    if labels["error"]:
        say(f"spai-run: {labels['error']} of {total} images could not be scored; the error column says why")
    return EXIT_SOME_ERRORS if labels["error"] else EXIT_SCORED


def _to_stdout(detector: Detector, sources: Sources, _: int, options: Options) -> Counter[str]:
    """Rows as they come; on a terminal they are the progress."""
    form = options.form
    if form is Form.AUTO:
        form = Form.TABLE if sys.stdout.isatty() else Form.CSV
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks is written as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    columns, labels = Columns(sources.columns), Counter[str]()
    sink = Stream(sys.stdout, Table(columns) if form is Form.TABLE else FORMATS[form], columns)
    for result in _results(detector, iter(sources), options):
        sink.write(result)
        labels[columns.label_of(result)] += 1
    return labels


def _to_file(detector: Detector, sources: Sources, total: int, options: Options) -> Counter[str]:
    assert options.output is not None
    columns = Columns(sources.columns)
    with ResultFile(options.output, columns, _identity(detector, options), resume=options.resume) as file:
        todo, labels = file.skip(iter(sources))
        results = _results(detector, todo, options)
        for result in shown(results, total, labels.total(), visible=not options.quiet):
            file.write(result)
            labels[columns.label_of(result)] += 1
        engine = detector.encoder
        file.finish(inputs=list(options.inputs), device=engine.device, engine=engine.label, labels=dict(labels))
    return labels


def _results(detector: Detector, items: Iterator[Item], options: Options) -> Iterator[Result]:
    decoder = None
    if options.decode is Decode.NVIMGCODEC:
        from spai_runtime.engines.cuda.jpeg import JpegDecoder  # noqa: PLC0415  an extra

        decoder = JpegDecoder(detector.encoder)
    return score_items(detector, items, batch_size=options.batch_size, workers=options.workers, decoder=decoder)


def _identity(detector: Detector, options: Options) -> dict[str, object]:
    """What rows depend on; the record of a run begins with it."""
    manifest, threshold = detector.manifest, detector.threshold
    encoder, head = detector.graphs
    return {
        "detector": manifest.name,
        "encoder_sha256": encoder.sha256,
        "head_sha256": head.sha256,
        "threshold": threshold.value,
        "threshold_source": threshold.source,
        "calibration": json.loads(msgspec.json.encode(manifest.calibration)),
        "decode": options.decode.value,
    }


def _summary(detector: Detector, labels: Counter[str]) -> str:
    counts = ", ".join(f"{labels[name]} {name}" for name in ("ai", "real", "error") if labels[name])
    limit = detector.threshold
    return (
        f"{counts}; threshold {limit.value:g}: {limit.source}; {detector.encoder.label}, {detector.manifest.precision}"
    )
