"""Traces the modules that training trains into two single-file ONNX graphs, dynamic in the number of views."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from spai_runtime.errors import UserError
from spai_runtime.manifest import Manifest
from spai_runtime.views import ViewShape
from spai_train.tensors import first_line

OPSET = 20  # the first with Gelu as one operator; TensorRT 10.12 and ONNX Runtime 1.20 read it
FUSED_OPSET = 23  # the first with Attention as one operator
EXAMPLE_SIDES = 64, 96  # height and width that are traced with where a view may have any

MOST_WEIGHTS = (1 << 31) - (1 << 24)  # bytes; protobuf, which ONNX is written in, ends at 2 GiB with all else

METADATA = "spai"  # key in a graph's metadata_props


class ExportError(UserError):
    """A graph that does not keep the contract, and why, in one sentence."""


def export_encoder(encoder: nn.Module, shape: ViewShape, path: Path, opset: int = OPSET) -> None:
    """Writes `views` uint8 (N, H, W, 3) → `features` float32 (N, D), or (P, D) where a view is looked at in windows.

    :param shape: height H and width W of a view; None where every image has its own
    :param opset: the opset; it is FUSED_OPSET where attention is fused
    """
    sides = zip(("height", "width"), shape, strict=True)
    dynamic = {axis: Dim(name, min=1) for axis, (name, side) in enumerate(sides, start=1) if side is None}
    height, width = (side or example for side, example in zip(shape, EXAMPLE_SIDES, strict=True))
    # Sizes 0 and 1 would specialise. In memory, channels come first, since torch pools what it takes for channels-last
    # with as_strided, which becomes a Gather of computed indices; ONNX knows no strides.
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8).permute(0, 2, 3, 1)
    _export(encoder, example, {0: Dim("views", min=1), **dynamic}, "views", ["features"], path, opset)


def export_head(head: nn.Module, features: int, path: Path, *, attention: bool = True) -> None:
    """Writes `features` float32 (B, V, D) → `logit` (B, 1), and `attention` (B, V) where the head gives it.

    :param features: width D of a view's features
    """
    dynamic = {0: Dim("images", min=1), 1: Dim("views", min=1)}
    outputs = ["logit", "attention"] if attention else ["logit"]
    _export(head, torch.zeros(2, 3, features), dynamic, "features", outputs, path, OPSET)


def _export(
    module: nn.Module,
    example: Tensor,
    dynamic: dict[int, Dim],
    input_name: str,
    outputs: list[str],
    path: Path,
    opset: int,
) -> None:
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[input_name],
                output_names=outputs,
                dynamic_shapes=(dynamic,),
                optimize=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:  # an operator that ONNX lacks, or sizes that torch wants fixed
        raise ExportError(f"torch cannot write {path.name}: {first_line(error.__cause__ or error)}") from error
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, with the paths of whoever exports
    _take_shapes_from_the_cast(program.model)
    _save(program.model, path)
    check_graph(path)


def _save(model: onnx_ir.Model, path: Path) -> None:
    """Writes one file of up to 2 GiB; torch's own `save` would put weights of more than 1.5 GB into a second one.

    :raises ExportError: the graph is larger than 2 GiB
    """
    weights = [value.const_value for value in model.graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in weights if tensor is not None)
    if size > MOST_WEIGHTS:
        raise ExportError(
            f"{path.name} would hold {size / 1e9:.1f} GB of weights, and a file in ONNX holds 2.1 GB: "
            "choose --precision fp16 alone"
        )
    onnx_ir.save(model, str(path))


def _take_shapes_from_the_cast(model: onnx_ir.Model) -> None:
    """Makes nodes that ask for the shape of the pixels ask for that of the cast pixels, which is the same.

    Flattening, for example, asks for the number of views, and TensorRT takes uint8 into a Cast alone.
    """
    changed = False
    for value in model.graph.inputs:
        cast = next((use.node for use in value.uses() if use.node.op_type == "Cast"), None)
        for use in [use for use in value.uses() if cast and use.node.op_type == "Shape"]:
            assert cast is not None
            use.node.replace_input_with(use.idx, cast.outputs[0])
            changed = True
    if changed:
        model.graph.sort()


def describe_graph(path: Path, manifest: Manifest, precision: str) -> None:
    """Writes into a graph's `metadata_props` what detector.json says of the detector, so that a lone file says it too.

    The text is that of the export: a later calibration changes detector.json alone.

    :param precision: the precision of this graph
    """
    fields = msgspec.to_builtins(manifest)
    about = {name: value for name, value in fields.items() if name not in ("artifacts", "provenance")}
    content = msgspec.json.encode({"schema": manifest.schema, **about, "precision": precision})
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA: content.decode()})
    onnx.save(model, str(path))


def check_graph(path: Path) -> None:
    """Checks what every back end relies on, beyond onnx.checker.

    :raises ExportError: there is an external tensor, a DFT, or a uint8 that feeds anything but a Cast
    """
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ExportError(f"{path.name} keeps tensors outside the file")
    if any(node.op_type in ("DFT", "STFT") for node in graph.node):
        raise ExportError(f"{path.name} has a DFT, which ONNX Runtime cannot run on CUDA nor TensorRT import")
    raw = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    misuse = sorted({node.op_type for node in graph.node if raw & set(node.input)} - {"Cast"})
    if misuse:
        raise ExportError(f"{path.name} feeds uint8 to {', '.join(misuse)}; TensorRT takes it into Cast alone")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's log of opset conversions and warnings of its own deprecations from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
