"""ONNX graphs with the inputs and outputs of an encoder and a head, small enough to follow by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from spai_runtime.engines.base import Contract

SIDE, WIDTH = 8, 3
ENCODER, HEAD = Contract.encoder((SIDE, SIDE), WIDTH), Contract.head(WIDTH)


def write_encoder(
    path: Path, width: int = WIDTH, input_name: str = "views", sides: tuple[int | str, int | str] = (SIDE, SIDE)
) -> Path:
    """features = mean colour of a view; uint8 feeds a Cast alone, as TensorRT wants it."""
    nodes = [
        helper.make_node("Cast", [input_name], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "sides"], ["features"], keepdims=0),
    ]
    views = value(input_name, TensorProto.UINT8, ["views", *sides, width])
    return write(path, nodes, [views], [value("features", TensorProto.FLOAT, ["views", width])])


def write_head(path: Path, *, attention: bool = True) -> Path:
    """logit = mean of all features of an image, attention = mean of those of a view."""
    nodes = [
        helper.make_node("ReduceMean", ["features", "sides"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["logit"]),
        helper.make_node("ReduceMean", ["features", "two"], ["attention"], keepdims=0),
    ]
    features = value("features", TensorProto.FLOAT, ["images", "views", WIDTH])
    logit = value("logit", TensorProto.FLOAT, ["images", 1])
    weights = value("attention", TensorProto.FLOAT, ["images", "views"])
    return write(path, nodes[: 2 + attention], [features], [logit, weights][: 1 + attention])


def encode(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the encoder does."""
    return views.mean((1, 2), dtype=np.float32)


def value(name: str, kind: int, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def write(
    path: Path, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> Path:
    axes = {"sides": [1, 2], "one": [1], "two": [2]}
    used = {name for node in nodes for name in node.input}
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers)
        for name, numbers in axes.items()
        if name in used
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path
