"""One artifact of a checkpoint: its encoder in one precision as a graph, verified, and compared with fp32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spai_export.choices import Precision
from spai_export.onnx import FUSED_OPSET, OPSET, describe_graph, export_encoder, export_head
from spai_export.quantize import calibration_views, quantize
from spai_export.source import Source
from spai_export.tensorrt import lint
from spai_export.verify import Verified, verify
from spai_runtime.accuracy import sentence
from spai_runtime.detector import Detector
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.manifest import ONNX, Accuracy, Artifact, Graph
from spai_train.torch_engine import TorchEngine

ENCODER, HEAD = "encoder.onnx", "head.onnx"


@dataclass(frozen=True)
class Made:
    """An artifact, and what its graphs were found to be.

    :param notes: sentences on what was not checked for TensorRT
    """

    artifact: Artifact
    verified: Verified
    notes: Sequence[str] = ()

    @property
    def sentences(self) -> Sequence[str]:
        """What the user is told of it."""
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
    """Writes an encoder.

    :param encoder: path to write
    :param head: that lies there
    :raises UserError: the graph differs from the checkpoint, is none that TensorRT imports, or gives other scores
    """
    fused = source.settings.fused(precision)
    opset, module = FUSED_OPSET if fused else OPSET, source.encoder(precision)
    export_encoder(module, source.manifest.views.shape, encoder, opset)
    verified = verify(source.manifest, module, source.head, (encoder, head))
    options: dict[str, Any] = {"opset": opset, "verified": verified.record()}
    if precision.quantised:
        options["quantised"] = _quantise(source, precision, encoder)
    notes = lint.check(encoder, lint.VERSIONS[-1:] if fused else lint.VERSIONS)
    accuracy = None if precision is Precision.FP32 else _accuracy(source, _engine(source, precision, module, encoder))
    describe_graph(encoder, source.manifest, precision)
    graphs = Graph.of(encoder), Graph.of(head)
    return Made(Artifact(ONNX, precision.value, *graphs, options=options, accuracy=accuracy), verified, notes)


def _quantise(source: Source, precision: Precision, graph: Path) -> Mapping[str, Any]:
    """Quantises the graph in its place. :returns: what detector.json says of it"""
    images = source.calibration
    views = calibration_views(images, source.manifest.views)
    done = quantize(graph, precision, views, graph)
    return {
        "calibration_images": len(images),
        "calibration_views": len(views),
        "scored_too": images is source.images,
        "products": len(done.products),
        "left_in_fp16": len(done.left),
    }


def _accuracy(source: Source, encoder: Engine) -> Accuracy:
    """Of an encoder, with the head that is fp32 in all precisions."""
    reference = source.reference
    with Detector(reference.manifest, encoder, reference.head, reference.threshold) as detector:
        return source.check_accuracy(detector)


def _engine(source: Source, precision: Precision, module: nn.Module, graph: Path) -> Engine:
    """The graph on the CPU; torch for bf16, for which ONNX Runtime has no kernels there."""
    if precision is Precision.BF16:
        return TorchEngine(module, "cpu")
    contract = Contract.encoder(source.manifest.views.shape, source.manifest.features)
    movable = precision is not Precision.FP8  # which ONNX Runtime moves to where it then refuses it
    return OnnxEngine(graph, contract, rewrites=movable)
