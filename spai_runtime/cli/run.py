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
from spai_runtime.cli.score import score
from spai_runtime.engines import BACKENDS
from spai_runtime.engines.isolated import COPIES, MEMORY, SECONDS, SECONDS_OF_A_CORE
from spai_runtime.fusion import Rule
from spai_runtime.images import UNTRUSTED_FORMATS
from spai_runtime.manifest import Precision

_BACKENDS = list(dict.fromkeys(row.name for row in BACKENDS))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


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
            help="Directory that spai-export wrote, or a graph in it (.onnx, .plan), which then runs and no other. "
            "Repeated, several detectors look at each image, which is decoded once. Left out: the demo detector."
        ),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A published detector that lies on the Hugging Face hub (`spai-train zoo` lists them): downloaded and "
            "exported once, which needs 'spai-toolkit[export]', into the folder that SPAI_CACHE names, else the user's "
            "cache. Repeatable, also beside --engine, whose columns come first.",
        ),
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence", help="The terms of a --detector whose weights allow no commercial use are accepted."
        ),
    ] = False,
    fuse: Annotated[
        Rule | None,
        typer.Option(
            help="How scores of several --engine and --detector become one, on their log-odds: 1 − Π (1 − p); the "
            "mean, largest or median logit; log Σ exp; the mean p. Left out: soft_or."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .csv or .jsonl, with a .run.json and a .resume beside it; none of the inputs, and "
            "none that another run is writing. Left out: stdout."
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="Of stdout; auto is a table on a terminal, CSV in a pipe.")
    ] = Form.AUTO,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda:0, or several GPUs, cuda:0,1; auto is the best that loads: TensorRT, TensorRT for RTX, "
            "ONNX Runtime on CUDA, OpenVINO on the CPU, ONNX Runtime on the CPU, and of each the fastest precision "
            "whose accuracy check passed. On a terminal the summary says which; with --output, the .run.json too. "
            "Where auto takes a plan, which is native code of whoever exported it, a line on stderr says so."
        ),
    ] = "auto",
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Run by this back end and no other: {', '.join(_BACKENDS)}."),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Compute the encoder's large products in this precision and no other. Left out: the fastest whose "
            "scores are those of fp32. On a CPU that multiplies bf16 in hardware, OpenVINO runs a graph in fp32 so, "
            "after its scores were compared on the example images, once; a graph that --engine names runs as it is."
        ),
    ] = None,
    untrusted_engine: Annotated[
        bool,
        typer.Option(
            "--untrusted-engine",
            help="Whoever made the --engine is not trusted: plans, which are native code, are refused (exit code 4); "
            f"graphs run on the CPU, each in a process of {MEMORY >> 30} GiB of memory and {COPIES} times its file, "
            f"and for a batch {SECONDS_OF_A_CORE} s of each core and {SECONDS} s by the clock. These are limits and no "
            "sandbox. Without it, an --engine is code of whoever made it: the sha256 in detector.json guards against "
            "accidents, not against its author.",
        ),
    ] = False,
    decode: Annotated[
        Decode,
        typer.Option(help="What decodes JPEGs: Pillow, or nvImageCodec on the GPU (one GPU; scores may move)."),
    ] = Decode.PILLOW,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Views that the encoder is given at once. Left out: as suits the engine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads. Left out: one a core, at most 32.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="For the label; of several detectors, for the fused one. Left out: detector.json's; 0.5."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Keep the rows of a CSV input whose `split` is this.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where an interrupted run of the same --output stopped. Rows are kept from the first on, up to "
            "an image that was added, changed, or removed; those behind it are scored anew.",
        ),
    ] = False,
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted",
            help=f"The images are strangers': of formats, only {', '.join(UNTRUSTED_FORMATS)} are decoded. The row of "
            "any other file says so.",
        ),
    ] = False,
    spreadsheet: Annotated[
        bool,
        typer.Option(
            "--spreadsheet",
            help="For CSV that a spreadsheet will open: text that it would run (it begins with = + - @, a tab or a "
            "line break) gets an apostrophe in front.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Score no rows: compare what each --engine runs here with its ONNX graphs on the CPU, on the INPUT or "
            "else the example images. What is found is kept in the user's cache, and a plan of TensorRT for RTX that "
            "no GPU had scored counts as scored on this one. Exit code 3: a score is off by more than 0.01.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Score nothing: show all that could run each --engine, or the demo detector, on this machine, from "
            "what is taken first to what is taken last, with a quick measurement of each, and what runs.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary on stderr.")] = False,
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
    )
    return compare(options) if check else show_choices(options) if explain else score(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; :returns: the exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # a decoder's remarks on a file that it decodes
    return execute(app, "spai-run", arguments)
