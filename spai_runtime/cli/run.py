"""spai-run: scores images of any size with an exported detector."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.check import check as compare
from spai_runtime.cli.commands import COMMON_CODES, VerboseOption, VersionOption, execute
from spai_runtime.cli.explain import explain as show_choices
from spai_runtime.cli.options import Decode, Form, Options
from spai_runtime.cli.report import report_from_rows
from spai_runtime.cli.score import score
from spai_runtime.engines import BACKENDS
from spai_runtime.engines.isolated import COPIES, MEMORY, SECONDS, SECONDS_OF_A_CORE
from spai_runtime.fusion import Rule
from spai_runtime.images import UNTRUSTED_FORMATS
from spai_runtime.install import extra
from spai_runtime.manifest import Precision
from spai_runtime.report.files import PAGE_IMAGES

_BACKENDS = list(dict.fromkeys(row.name for row in BACKENDS))

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    epilog="Exit code: 0 all images scored; 3 some rows are errors, or --check found other scores; 2 usage, or nothing "
    "could run. "
    f"{COMMON_CODES} "
    "Columns: a CSV input's own, then path, score, logit, label, width, height, views, error; of several detectors "
    "NAME_score, NAME_logit, NAME_label each, then fusion_score, fusion_label, and no views. "
    "score is the probability that the image is AI-generated; label is `ai`, "
    "or the word that detector.json has as `positive`, where score > threshold, else `real`."
)
def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Images, folders (searched recursively), globs, a .csv (`image[,class,split]` or `filename[,typ]`, "
            "paths relative to it) or a .txt (a path a line). With --check it may be left out.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        list[Path] | None,
        typer.Option(
            help="Directory that spai-export wrote, or one graph in it (.onnx, .plan). If you name a graph, there "
            "is no fallback to another one. If you repeat the option, several detectors look at each image, "
            "which is decoded once. Without it, the demo detector runs."
        ),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name of a published detector on the Hugging Face hub (`spai-train zoo` lists them). It is "
            "downloaded and exported once, into the folder that SPAI_CACHE names or the user's cache; this "
            f"needs {extra('export')}. You can repeat the option and combine it with --engine, whose "
            "columns come first.",
        ),
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Accept the terms of a --detector whose weights forbid commercial use."),
    ] = False,
    fuse: Annotated[
        Rule | None,
        typer.Option(
            help="Rule that makes one score of those of several --engine and --detector, from their log-odds. "
            "soft_or is 1 − Π (1 − p), and the default; then there are the mean, the largest and the median "
            "logit, log Σ exp (lse), and the mean p."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, .csv or .jsonl; a .run.json and a .resume are written beside it. It must not be "
            "one of the inputs, and no other run may be writing it. Without it, rows go to stdout.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Page to write, .html: a picture, the score and the label of every image, heat maps, the distribution "
            f"of scores, and what is known of each detector. It is one file of at most {PAGE_IMAGES:,} images, whose "
            "pictures take up to 54 MB; a longer run gets more files (report-2.html). Rows are written as without it."
        ),
    ] = None,
    from_rows: Annotated[
        Path | None,
        typer.Option(
            help="Score nothing. Instead, make the --report of the rows that an earlier run wrote with --output. Run "
            "it in the same folder, so that the images are found. Such a report has no heat maps."
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="Format of stdout. auto is a table on a terminal and CSV in a pipe.")
    ] = Form.AUTO,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            help="Where to run: cpu, cuda:0, several GPUs as cuda:0,1, or auto. auto takes the first of these that "
            "loads: TensorRT, TensorRT for RTX, ONNX Runtime on CUDA, OpenVINO on the CPU, ONNX Runtime on the "
            "CPU; and of each the fastest precision whose accuracy check passed. The summary on a terminal "
            "says what ran; so does the .run.json beside --output. If auto takes a plan, which is native code "
            "of whoever exported it, a line on stderr says so.",
        ),
    ] = "auto",
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Allow this back end only: {', '.join(_BACKENDS)}."),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Allow this precision of the encoder's large products only. Without it, the fastest precision runs "
            "whose scores agree with those of fp32. On a CPU that multiplies bf16 in hardware, OpenVINO "
            "computes an fp32 graph in bf16, once its scores were compared on the example images. A graph that "
            "--engine names runs as it is."
        ),
    ] = None,
    untrusted_engine: Annotated[
        bool,
        typer.Option(
            "--untrusted-engine",
            help="Do not trust whoever made the --engine. Plans, which are native code, are refused (exit code 4); "
            f"graphs run on the CPU, each in a process of {MEMORY >> 30} GiB of memory and {COPIES} times its file, "
            f"and for a batch {SECONDS_OF_A_CORE} s of each core and {SECONDS} s by the clock. These are limits and no "
            "sandbox. Without it, an --engine is code of whoever made it: the sha256 in detector.json guards against "
            "accidents, not against its author.",
        ),
    ] = False,
    decode: Annotated[
        Decode,
        typer.Option(
            help="Decoder of JPEGs: Pillow, or nvImageCodec on the GPU (on one GPU; scores may differ slightly)."
        ),
    ] = Decode.PILLOW,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="How many views the encoder gets at once. Without it, as many as suit the engine."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="How many threads decode images. Without it, one for each core, at most 32."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            min=0,
            max=1,
            help="Score above which an image gets the label; with several detectors, the fused score. Without it, the "
            "threshold of detector.json; 0.5 for fused scores.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Score only those rows of a CSV input whose column `split` has this value.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where an interrupted run of the same --output stopped. Rows are kept up to the first image "
            "that was added, changed or removed; all images after it are scored again.",
        ),
    ] = False,
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted",
            help=f"The images come from strangers: only {', '.join(UNTRUSTED_FORMATS)} are decoded. Any other file "
            "becomes a row with an error.",
        ),
    ] = False,
    spreadsheet: Annotated[
        bool,
        typer.Option(
            "--spreadsheet",
            help="Make the CSV safe for a spreadsheet: text that a spreadsheet would run (it begins with = + - @, a "
            "tab or a line break) gets an apostrophe in front.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write no rows. Instead, compare the scores of what each --engine runs here with those of its ONNX "
            "graphs on the CPU, on the INPUT or on the example images. The result is kept in the user's cache; "
            "a plan of TensorRT for RTX counts as scored on this GPU then. The exit code is 3 if a score is "
            "off by more than 0.01.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Score nothing. Instead, list everything that could run each --engine, or the demo detector, on this "
            "machine, in the order of preference, with a quick measurement of each; and say what would run.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no progress and no summary on stderr.")] = False,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
    version: VersionOption = False,  # noqa: ARG001
) -> int:
    """Tell AI-generated images from real ones, at any resolution."""
    options = Options(
        tuple(inputs or ()),
        tuple(engine or ()),
        tuple(detector or ()),
        accept_licence,
        fuse,
        output,
        form,
        device,
        backend,
        precision,
        untrusted_engine,
        decode,
        batch_size,
        workers,
        threshold,
        split,
        resume,
        untrusted,
        spreadsheet,
        quiet,
        check,
        explain,
        report,
        from_rows,
    )
    if from_rows:
        return report_from_rows(options)
    return compare(options) if check else show_choices(options) if explain else score(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # a decoder's remarks on a file that it decodes
    return execute(app, "spai-run", arguments)
