"""spai-run --explain says what could run a detector here, what runs, why, and how fast each candidate is."""

from contextlib import closing

from spai_runtime import checks
from spai_runtime.choice import Candidate, Requested, candidates
from spai_runtime.cli.commands import show
from spai_runtime.cli.options import Options
from spai_runtime.cores import cores
from spai_runtime.detector import Detector, demo_directory
from spai_runtime.engines.processor import fast_flags
from spai_runtime.errors import EngineError
from spai_runtime.exported import Exported
from spai_runtime.loading import Engines, start
from spai_runtime.manifest import Accuracy
from spai_runtime.speed import views_per_second


def explain(options: Options) -> int:
    """Say for every --engine, or for the demo detector, what could run it, from the best to the last, and what runs.

    :returns: 0
    :raises UserError: nothing can run
    """
    show(
        f"{cores()} cores to compute on; {', '.join(fast_flags()) or 'no instructions for bf16 or int8 that are known'}"
    )
    for path in options.engines or (demo_directory(),):
        exported = Exported.open(path)
        requested = Requested(options.device, options.backend, options.precision, options.untrusted_engine)
        with Detector.load(
            path,
            device=options.device,
            backend=options.backend,
            precision=options.precision,
            untrusted=options.untrusted_engine,
        ) as detector:
            runs = detector.artifact, detector.encoder.label, detector.precision
        show(f"{path}: {exported.manifest.name}")
        for candidate in candidates(exported, requested, here=False):
            show(f"  {_line(exported, candidate, runs)}")
    return 0


def _line(exported: Exported, candidate: Candidate, runs: tuple[object, ...]) -> str:
    artifact, backend = candidate.artifact, candidate.backend
    precision = f"{artifact.precision} in {candidate.precision}" if candidate.lowered else candidate.precision
    named = f"{backend.name:<13} {candidate.device:<7} {precision:<13} {artifact.encoder.file:<22}"
    if not backend.available():
        return f"{named} not here: {_missing(candidate)}"
    try:
        with closing(start(exported, candidate)) as engines:
            speed = f"{views_per_second(engines.encoder, exported.manifest):8.1f} views/s"
            taken = " ← runs" if (artifact, engines.encoder.label, engines.precision) == runs else ""
            return f"{named} {speed}; {_scores(candidate, engines)}{taken}"
    except EngineError as error:
        return f"{named} does not load: {error}"


def _missing(candidate: Candidate) -> str:
    """What the candidate's probe looks for."""
    if candidate.backend.own or candidate.backend.computes:
        return f"the library, or instructions of the processor for {candidate.precision}, are missing"
    return "the library is missing"


def _scores(candidate: Candidate, engines: Engines) -> str:
    """What is known about how far the candidate's scores are from those of fp32."""
    artifact = candidate.artifact
    found = checks.found(artifact, engines.encoder.label)
    if found is None and engines.precision == artifact.precision:
        found = artifact.accuracy
    if found is not None:
        return f"{_verdict(found)} on {found.images} images of {found.source}"
    if engines.precision == "fp32":
        return "fp32, which the others are compared with"
    return "scores not compared with those of fp32"


def _verdict(found: Accuracy) -> str:
    within = "within" if found.passed else "NOT within"
    return f"|Δscore| at most {found.score_difference.largest:.1e}, {within} {found.limit:g},"
