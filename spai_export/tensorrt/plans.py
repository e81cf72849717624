"""The ONNX graphs of an exported directory → TensorRT plans, built on the GPU that shall run them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from spai_export.choices import file_name, labelled
from spai_export.onnx import ExportError
from spai_export.tensorrt import lint
from spai_export.tensorrt.builder import BuildOptions, InputShape, PlanBuilder
from spai_export.tensorrt.inspector import Layers, Wanted
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.tensorrt_log import sentence
from spai_runtime.engines.tensorrt_target import Target
from spai_runtime.errors import EngineError
from spai_runtime.manifest import ONNX, Artifact, Graph, Manifest
from spai_runtime.views import ViewShape

__all__ = ["ENCODER_PLAN", "HEAD_PLAN", "LAYERS", "BuildOptions", "Built", "TensorRTMissingError", "available", "build"]

KIND = "tensorrt"
OLDEST = (10, 12)
ENCODER_PLAN, HEAD_PLAN, LAYERS = "model.plan", "head.plan", "model.layers.json"
HEAD_OPT = 16  # views that the head is tuned for: an image of 896 × 896

# Sides in pixels of views that are whole images: the least, which the runtime wants to be 1; what plans are tuned for;
# and the most, which photographs of 12 megapixels are within.
WHOLE_MIN, WHOLE_OPT, WHOLE_MAX = 1, 1024, 4096


class TensorRTMissingError(ExportError):
    """No TensorRT that builds plans, or no GPU to build them on: what to install or where to run, in one sentence."""


@dataclass(frozen=True)
class Built:
    """What a build has made.

    :param artifacts: a pair of plans of each precision, whose accuracy was not checked yet
    :param notes: sentences for the user: what the engine inspector found, and TensorRT's warnings
    """

    artifacts: Sequence[Artifact]
    notes: Sequence[str]
    seconds: float


def available(device: str = "cuda:0") -> tuple[Any, Gpu]:
    """TensorRT, and the GPU to build on. :raises TensorRTMissingError: either is not there, or too old"""
    trt = _import()
    try:
        return trt, Gpu.find(device)
    except EngineError as error:
        raise TensorRTMissingError(
            f"a plan is built on the GPU that shall run it, so run this command there: {error}"
        ) from error


def build(directory: Path, manifest: Manifest, folder: Path, options: BuildOptions) -> Built:
    """Writes a plan of each graph in a directory, model.plan, model.<precision>.plan and head.plan, into `folder`.

    The first is the first artifact's. Beside each plan of an encoder lies the engine inspector's report on it,
    model.layers.json, if there is one.

    :raises ExportError: TensorRT or a GPU is missing, a graph is refused, or no kernel fits
    :raises OSError: `folder` cannot be written
    """
    started = time.perf_counter()
    trt, gpu = available(options.device)
    sources = [artifact for artifact in manifest.artifacts if artifact.kind == ONNX]
    for name in dict.fromkeys(name for source in sources for name in source.files):
        lint.check(directory / name, [trt.__version__])  # of the version that is here: its own refusals name no remedy
    encoder, plans, notes = _encoder_shape(manifest.views.shape, options), [], []
    with gpu:
        builder = PlanBuilder(trt, options)
        for source in sources:
            names = (file_name(name, source.precision, first=source is sources[0]) for name in (ENCODER_PLAN, LAYERS))
            plan, report = (folder / name for name in names)
            found = _build_encoder(builder, directory / source.encoder.file, encoder, plan, report)
            notes += labelled(found, source.precision, alone=len(sources) == 1)
            plans.append(plan)
        head = builder.build(directory / sources[0].head.file, _head_shape(manifest.features, options))
    (folder / HEAD_PLAN).write_bytes(head)
    target = Target(trt.__version__, gpu.name, gpu.capability, encoder.max[0], options.version_compatible)
    artifacts = [_artifact(source, plan, target, options) for source, plan in zip(sources, plans, strict=True)]
    return Built(artifacts, [*notes, *builder.notes()], time.perf_counter() - started)


def _import() -> Any:
    try:
        import tensorrt as trt  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: a library that it loads by itself
        lean = "tensorrt_lean runs plans but builds none" if find_spec("tensorrt_lean") else _absence(error)
        raise TensorRTMissingError(
            f"{lean}: pip install 'spai-toolkit[trt]' on a machine with an NVIDIA GPU, and run this command there"
        ) from error
    if tuple(map(int, trt.__version__.split(".")[:2])) < OLDEST:
        raise TensorRTMissingError(f"TensorRT {trt.__version__} is too old: pip install 'tensorrt>=10.12'")
    return trt


def _absence(error: Exception) -> str:
    """Not installed, or installed without the libraries that it loads."""
    if getattr(error, "name", None) == "tensorrt":
        return "TensorRT is not installed"
    return f"TensorRT cannot be loaded ({sentence(str(error))})"


def _build_encoder(builder: PlanBuilder, graph: Path, shape: InputShape, plan: Path, report: Path) -> list[str]:
    """:returns: what the engine inspector found"""
    content = builder.build(graph, shape)
    plan.write_bytes(content)
    layers = builder.inspect(content, shape)
    if layers:
        report.write_bytes(layers.encode())
    return Layers.of(layers).summary(Wanted.of(graph))


def _encoder_shape(view: ViewShape, options: BuildOptions) -> InputShape:
    """Any number of views of one size; whole images come one by one."""
    height, width = view
    most = options.batch_size
    if height is None or width is None:
        most = 1
    shapes = (
        (count, height or whole, width or whole, 3)
        for count, whole in ((1, WHOLE_MIN), (most, WHOLE_OPT), (most, WHOLE_MAX))
    )
    return InputShape("views", *shapes)


def _head_shape(features: int, options: BuildOptions) -> InputShape:
    counts = 1, min(HEAD_OPT, options.head_views), options.head_views
    return InputShape("features", *((1, count, features) for count in counts))


def _artifact(source: Artifact, plan: Path, target: Target, options: BuildOptions) -> Artifact:
    """:param source: the graphs that the plan was built from"""
    return Artifact(
        kind=KIND,
        precision=source.precision,
        encoder=Graph.of(plan),
        head=Graph.of(plan.with_name(HEAD_PLAN)),
        target=msgspec.to_builtins(target),
        options={
            "tf32": False,
            "workspace_gib": options.workspace_gib,
            "optimization_level": options.optimization_level,
            "head_views": options.head_views,
            "onnx_sha256": {graph.file: graph.sha256 for graph in (source.encoder, source.head)},
        },
    )
