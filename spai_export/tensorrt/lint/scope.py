"""What one ONNX graph knows of the tensors that its nodes can see: element types, shapes, constants."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]  # None: an axis that the graph leaves open
Known = tuple[int, Shape | None]  # element type, shape if inferred


@dataclass(frozen=True)
class Scope:
    """The tensors that the nodes of `graph` can name, those of the graphs around it included.

    :param inputs: what the outermost graph reads from outside, and `outputs` what it gives; both empty in a subgraph
    """

    graph: GraphProto
    tensors: Mapping[str, Known]
    constants: Mapping[str, TensorProto]
    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, graph: GraphProto) -> "Scope":
        """The scope of a whole, type-inferred network."""
        constants = dict(_constants(graph))
        inputs = frozenset(value.name for value in graph.input) - constants.keys()
        outputs = frozenset(value.name for value in graph.output)
        return cls(graph, dict(_tensors(graph)), constants, inputs, outputs)

    def inside(self, graph: GraphProto) -> "Scope":
        """The scope of a graph that a node of this one holds."""
        tensors = {**self.tensors, **dict(_tensors(graph))}
        return Scope(graph, tensors, {**self.constants, **dict(_constants(graph))})

    def element(self, name: str) -> int | None:
        """TensorProto.DataType of a tensor, or None where it could not be inferred."""
        return self.tensors[name][0] if name in self.tensors else None

    def shape(self, name: str) -> Shape | None:
        return self.tensors[name][1] if name in self.tensors else None

    def constant(self, name: str) -> TensorProto | None:
        """The value of an initializer or of a Constant."""
        return self.constants.get(name)


def element_name(element: int | None) -> str:
    """1 → `float32`, as numpy calls it."""
    assert element is not None
    name: str = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _tensors(graph: GraphProto) -> Iterator[tuple[str, Known]]:
    for value in chain(graph.input, graph.value_info, graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type:
            tensor = value.type.tensor_type
            axes = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)
            yield value.name, (tensor.elem_type, axes if tensor.HasField("shape") else None)
    for name, value in _constants(graph):
        yield name, (value.data_type, tuple(value.dims))


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], value) for value in _values(node))


def _values(node: NodeProto) -> Iterator[TensorProto]:
    """What a Constant holds, in whichever attribute; strings and sparse tensors aside."""
    kinds = {"value_float": TensorProto.FLOAT, "value_floats": TensorProto.FLOAT}
    kinds |= {"value_int": TensorProto.INT64, "value_ints": TensorProto.INT64}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.name in kinds:
            dtype = helper.tensor_dtype_to_np_dtype(kinds[attribute.name])
            yield numpy_helper.from_array(dtype.type(helper.get_attribute_value(attribute)))
