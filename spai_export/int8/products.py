"""The linear layers of an encoder's graph that may be in 8 bits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from spai_export.quantize import excluded_nodes


@dataclass(frozen=True)
class Product:
    """A MatMul of a computed tensor and a constant matrix.

    :param node: the node's name
    :param layer: the name that the user sees: the layer's name in the checkpoint, where the graph still says it
    :param factor: the tensor (…, D) that the graph computes
    :param weight: the constant (D, P)
    :param output: (…, P)
    """

    node: str
    layer: str
    factor: str
    weight: str
    output: str


def products(model: onnx.ModelProto) -> list[Product]:
    """The products between patch embedding and statistics, in the order of the graph.

    Attention's two products have no constant factor, and stay as they are. So do the products with one row a view
    (Gemm), which take no time.
    """
    constants, excluded = _constants(model), set(excluded_nodes(model))
    biases = _biases(model)
    return [
        Product(node.name, biases.get(node.output[0], node.name), node.input[0], node.input[1], node.output[0])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.name not in excluded and len(constants.get(node.input[1], ())) == 2
    ]


def constant(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    """The values of an initializer."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def _constants(model: onnx.ModelProto) -> dict[str, Sequence[int]]:
    return {tensor.name: tensor.dims for tensor in model.graph.initializer}


def _biases(model: onnx.ModelProto) -> dict[str, str]:
    """Tensor → the layer whose bias is added to it; equal biases become one constant in torch and name no layer."""
    constants = _constants(model)
    found = {
        one: other.removesuffix(".bias")
        for node in model.graph.node
        if node.op_type == "Add"
        for one, other in (node.input, reversed(node.input))
        if other in constants and other.endswith(".bias")
    }
    uses = Counter(found.values())
    return {tensor: layer for tensor, layer in found.items() if uses[layer] == 1}
