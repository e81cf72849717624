"""Traces the modules that training trains into two single-file ONNX graphs, dynamic in the number of views."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from spai_runtime.errors import UserError

OPSET = 20  # the first with Gelu as one operator; TensorRT 10.12 and ONNX Runtime 1.20 read it
FUSED_OPSET = 23  # the first with Attention as one operator


class ExportError(UserError):
    """A graph that does not keep the contract, and why, in one sentence."""


def export_encoder(encoder: nn.Module, size: int, path: Path, opset: int = OPSET) -> None:
    """Writes `views` uint8 (N, S, S, 3) → `features` float32 (N, D).

    :param size: side S of a view
    :param opset: FUSED_OPSET where its attention is fused
    """
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # sizes 0 and 1 would specialise
    _export(encoder, example, {0: Dim("views", min=1)}, "views", ["features"], path, opset)


def export_head(head: nn.Module, features: int, path: Path) -> None:
    """Writes `features` float32 (B, V, D) → `logit` (B, 1), `attention` (B, V).

    :param features: width D of a view's features
    """
    dynamic = {0: Dim("images", min=1), 1: Dim("views", min=1)}
    _export(head, torch.zeros(2, 3, features), dynamic, "features", ["logit", "attention"], path, OPSET)


def _export(
    module: nn.Module,
    example: Tensor,
    dynamic: dict[int, Dim],
    input_name: str,
    outputs: list[str],
    path: Path,
    opset: int,
) -> None:
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
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, with the paths of whoever exports
    program.save(str(path), external_data=False)
    check_graph(path)


def check_graph(path: Path) -> None:
    """What every back end relies on, beyond onnx.checker.

    :raises ExportError: an external tensor, a DFT, or a uint8 that feeds anything but a Cast
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
    """The exporter logs its opset conversions and warns of its own deprecations; neither is for the user."""
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
