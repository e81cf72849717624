"""Builds plans from the ONNX graphs of an exported directory, with the TensorRT that is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spai_export.choices import file_name, labelled
from spai_export.tensorrt import lint
from spai_export.tensorrt.builder import BuildOptions, InputShape, PlanBuilder
from spai_export.tensorrt.inspector import Wanted
from spai_export.tensorrt.platforms import Platform, choose
from spai_runtime.manifest import ONNX, Artifact, Graph, Manifest, Precision
from spai_runtime.views import ViewPolicy

__all__ = ["ENCODER_PLAN", "HEAD_PLAN", "LAYERS", "BuildOptions", "Built", "build"]

ENCODER_PLAN, HEAD_PLAN, LAYERS = "model.plan", "head.plan", "model.layers.json"
HEAD_OPT = 16  # views that the head is tuned for: an image of 896 × 896

# Sides in pixels of views that are whole images: the least, which the runtime wants to be 1; what plans are tuned for;
# and the most, which photographs of 12 megapixels are within.
WHOLE_MIN, WHOLE_OPT, WHOLE_MAX = 1, 1024, 4096


@dataclass(frozen=True)
class Built:
    """What a build has made.

    :param artifacts: a pair of plans for each precision, whose accuracy has not been checked yet
    :param notes: sentences for the user: which TensorRT built for what, what became of the layers, and its warnings
    """

    artifacts: Sequence[Artifact]
    notes: Sequence[str]


def build(directory: Path, manifest: Manifest, folder: Path, options: BuildOptions) -> Built:
    """Writes a plan of each graph in a directory, model.plan, model.<precision>.plan and head.plan, into `folder`.

    model.plan is that of the first artifact. Beside each plan of an encoder lies the engine inspector's report on it,
    model.layers.json, if there is one.

    :raises ExportError: TensorRT or a GPU is missing, a graph is refused, or no kernel fits
    :raises OSError: `folder` cannot be written
    """
    platform = choose(options)
    sources = [artifact for artifact in manifest.artifacts if artifact.kind == ONNX]
    for name in dict.fromkeys(name for source in sources for name in source.files):
        lint.check(directory / name, [platform.release])  # of the version that is here: its refusals name no remedy
    encoder, artifacts = _encoder_shape(manifest.views, options), []
    notes = [platform.label([source.precision for source in sources])]
    with platform.building():
        builder = PlanBuilder(platform.trt, options)
        configure = partial(platform.configure, "fp32")
        head = builder.build(directory / sources[0].head.file, _head_shape(manifest.features, options), configure)
        (folder / HEAD_PLAN).write_bytes(head)
        for source in sources:
            names = (file_name(name, source.precision, first=source is sources[0]) for name in (ENCODER_PLAN, LAYERS))
            plan, report = (folder / name for name in names)
            graph = directory / source.encoder.file
            found = _build_encoder(platform, builder, graph, source.precision, encoder, plan, report)
            notes += labelled(found, source.precision, alone=len(sources) == 1)
            target = platform.target(source.precision, encoder.max[0], options)
            artifacts.append(_artifact(platform.kind, source, plan, target, options))
    return Built(artifacts, [*notes, *builder.notes()])


def _build_encoder(
    platform: Platform,
    builder: PlanBuilder,
    graph: Path,
    precision: Precision,
    shape: InputShape,
    plan: Path,
    report: Path,
) -> list[str]:
    """:param plan, report: where it goes, and what its layers were read from, if there is anything
    :returns: what became of the graph's products and attentions
    """
    content = builder.build(graph, shape, partial(platform.configure, precision))
    plan.write_bytes(content)
    layers, text = platform.layers(builder, content, shape)
    if text:
        report.write_bytes(text.encode())
    return layers.summary(Wanted.of(graph))


def _encoder_shape(policy: ViewPolicy, options: BuildOptions) -> InputShape:
    """The shapes of an encoder's input: any number of views of one size, or one whole image or window at a time."""
    height, width = policy.shape
    most, window = options.batch_size, policy.window
    usual, largest = (window.side, window.side) if window else (WHOLE_OPT, WHOLE_MAX)
    if height is None or width is None:
        most = 1
    shapes = (
        (count, height or whole, width or whole, 3) for count, whole in ((1, WHOLE_MIN), (most, usual), (most, largest))
    )
    return InputShape("views", *shapes)


def _head_shape(features: int, options: BuildOptions) -> InputShape:
    counts = 1, min(HEAD_OPT, options.head_views), options.head_views
    return InputShape("features", *((1, count, features) for count in counts))


def _artifact(kind: str, source: Artifact, plan: Path, target: dict[str, Any], options: BuildOptions) -> Artifact:
    """:param source: the graphs that the plan was built from"""
    return Artifact(
        kind=kind,
        precision=source.precision,
        encoder=Graph.of(plan),
        head=Graph.of(plan.with_name(HEAD_PLAN)),
        target=target,
        options={
            "tf32": False,
            "workspace_gib": options.workspace_gib,
            "optimization_level": options.optimization_level,
            "head_views": options.head_views,
            "onnx_sha256": {graph.file: graph.sha256 for graph in (source.encoder, source.head)},
        },
    )
