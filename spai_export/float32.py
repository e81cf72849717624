"""A graph in half precision → the same graph in float32, for engines that have no kernels for it.

ONNX Runtime has no kernels for bfloat16 on the CPU. In float32, everything but the rounding of the products can still
be verified: the structure, and the weights, which keep their rounded values.
"""

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

HALVES = TensorProto.FLOAT16, TensorProto.BFLOAT16
ELEMENT_ATTRIBUTES = "to", "dtype", "output_dtype", "softmax_precision"  # that hold a TensorProto.DataType


def to_float32(model: ModelProto) -> ModelProto:
    """A copy in which every tensor of 16 bits, and every cast to one, has 32; a cast to 32 then does nothing."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _convert(copy.graph)
    return copy


def _convert(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _convert_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _convert_value(value)
    for attribute in _attributes(graph):
        if attribute.type == AttributeProto.TENSOR:
            _convert_tensor(attribute.t)
        elif attribute.type == AttributeProto.GRAPH:
            _convert(attribute.g)
        elif attribute.name in ELEMENT_ATTRIBUTES and attribute.i in HALVES:
            attribute.i = TensorProto.FLOAT


def _attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    for node in graph.node:
        yield from node.attribute


def _convert_value(value: ValueInfoProto) -> None:
    if value.type.tensor_type.elem_type in HALVES:
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def _convert_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in HALVES:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
