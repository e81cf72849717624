"""One artifact of a checkpoint: its encoder in one precision as a graph, verified, and compared with fp32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spai_export.calibration import IMAGES, calibration_views, few_images
from spai_export.choices import Precision
from spai_export.int8.fitting import VIEWS, fit
from spai_export.onnx import FUSED_OPSET, OPSET, describe_graph, export_encoder, export_head
from spai_export.quantize import quantize
from spai_export.source import Source
from spai_export.tensorrt import lint
from spai_export.verify import Verified, verify
from spai_runtime.accuracy import sentence
from spai_runtime.detector import Detector
from spai_runtime.engines import backends
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.manifest import DEVICE, ONNX, Accuracy, Artifact, Graph
from spai_train.torch_engine import TorchEngine

ENCODER, HEAD = "encoder.onnx", "head.onnx"
CPU = "cpu"
FOR_CPU = {DEVICE: CPU}  # the target of a graph that is fast on a CPU, and on nothing else
WHERE_BF16_RUNS = (
    "a graph in bf16 runs on NVIDIA GPUs of compute capability 8.0 and newer, in ONNX Runtime on CUDA or as a plan of "
    "TensorRT, and on a CPU in OpenVINO alone, where the processor multiplies bf16 (AVX-512 BF16, AMX)"
)


@dataclass(frozen=True)
class Made:
    """An artifact, and what was found out about its graphs.

    :param notes: sentences on what was not checked for TensorRT, or on what became of the layers in int8 for a CPU
    """

    artifact: Artifact
    verified: Verified
    notes: Sequence[str] = ()

    @property
    def sentences(self) -> Sequence[str]:
        """What the user is told of the artifact."""
        accuracy = self.artifact.accuracy
        return [str(self.verified), *([sentence(accuracy)] if accuracy else []), *self.notes]


def export_shared_head(source: Source, folder: Path) -> Path:
    """Writes the head, which is the same in all precisions.

    :raises ExportError: TensorRT does not import it
    """
    path = folder / HEAD
    export_head(source.head, source.manifest.features, path, attention=source.manifest.attention)
    lint.check(path)
    describe_graph(path, source.manifest, Precision.FP32)
    return path


def make_artifact(source: Source, precision: Precision, encoder: Path, head: Path) -> Made:
    """Writes the encoder of one artifact, verifies it and compares its scores with those of fp32.

    :param encoder: the path to write
    :param head: the path of the head, which is there already
    :raises UserError: the graph differs from the checkpoint, TensorRT does not import it, or it gives other scores
    """
    fused = source.settings.fused(precision)
    opset = FUSED_OPSET if fused else OPSET
    export_encoder(source.traced(precision), source.manifest.views.shape, encoder, opset)
    module = source.encoder(precision)
    verified = verify(source.manifest, module, source.head, (encoder, head))
    options: dict[str, Any] = {"opset": opset, "verified": verified.record()}
    if source.settings.for_cpu(precision):
        return _for_cpu(source, encoder, head, verified, options)
    if precision.quantised:
        options["quantised"] = _quantise(source, precision, encoder)
    notes = [*lint.check(encoder, lint.VERSIONS[-1:] if fused else lint.VERSIONS)]
    if precision.quantised:
        notes += few_images(source.folder_size, IMAGES, options["quantised"]["calibration_views"])
    if precision is Precision.BF16:
        notes.append(WHERE_BF16_RUNS)
    accuracy = None
    if precision is not Precision.FP32:
        accuracy = source.accept(_compare(source, _engine(source, precision, module, encoder)))
    describe_graph(encoder, source.manifest, precision)
    graphs = Graph.of(encoder), Graph.of(head)
    return Made(Artifact(ONNX, precision.value, *graphs, options=options, accuracy=accuracy), verified, notes)


def _for_cpu(source: Source, encoder: Path, head: Path, verified: Verified, options: Mapping[str, Any]) -> Made:
    """Quantises the fp32 encoder to int8, and compares it with fp32 on the engine that users of a CPU get."""

    def compare() -> Accuracy:
        artifact = Artifact(ONNX, Precision.INT8.value, Graph.of(encoder), Graph.of(head), FOR_CPU)
        row = next(row for row in backends() if row.device == CPU and row.runs(artifact) and row.available())
        return _compare(source, row.open(encoder, _contract(source), CPU, artifact))

    views = calibration_views(source.calibration, source.manifest.views, VIEWS)
    fitted = fit(encoder, views, compare)
    source.accept(fitted.accuracy)
    describe_graph(encoder, source.manifest, Precision.INT8)
    record = {"quantised": {**_calibrated(source, len(views)), **fitted.record}}
    graphs = Graph.of(encoder), Graph.of(head)
    artifact = Artifact(ONNX, Precision.INT8.value, *graphs, FOR_CPU, {**options, **record}, fitted.accuracy)
    few = few_images(len(source.calibration), VIEWS, len(views))
    return Made(artifact, verified, [*fitted.sentences, *few])


def _quantise(source: Source, precision: Precision, graph: Path) -> Mapping[str, Any]:
    """Quantises the graph in its place. :returns: what detector.json says of it"""
    views = calibration_views(source.calibration, source.manifest.views)
    done = quantize(graph, precision, views, graph)
    return {**_calibrated(source, len(views)), "products": len(done.products), "left_in_fp16": len(done.left)}


def _calibrated(source: Source, views: int) -> Mapping[str, Any]:
    """What detector.json says of the calibration."""
    images = source.calibration
    return {"calibration_images": len(images), "calibration_views": views, "scored_too": images is source.images}


def _compare(source: Source, encoder: Engine) -> Accuracy:
    """Compares an encoder's scores with those of fp32; the head is fp32 in all precisions."""
    reference = source.reference
    with Detector(reference.manifest, encoder, reference.head, reference.threshold) as detector:
        return source.compare(detector)


def _contract(source: Source) -> Contract:
    manifest = source.manifest
    return Contract.encoder(manifest.views.shape, manifest.features, manifest.views.window)


def _engine(source: Source, precision: Precision, module: nn.Module, graph: Path) -> Engine:
    """An engine with the graph on the CPU; for bf16 it is torch, since ONNX Runtime has no kernels for it there."""
    if precision is Precision.BF16:
        return TorchEngine(module, "cpu")
    movable = precision is not Precision.FP8  # which ONNX Runtime moves to where it then refuses it
    return OnnxEngine(graph, _contract(source), rewrites=movable)
