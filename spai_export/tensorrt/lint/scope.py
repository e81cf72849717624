"""What an ONNX graph knows of its tensors: element types, shapes, constants."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from onnx import GraphProto, TensorProto

Shape = tuple[int | None, ...]  # None: an axis that the graph leaves open
Known = tuple[int, Shape | None]  # element type, shape if inferred


@dataclass(frozen=True)
class Scope:
    """The tensors of a type-inferred graph.

    :param constants: its initializers, which is where the exporter puts every constant
    :param outputs: the names of its outputs
    """

    tensors: Mapping[str, Known]
    constants: Mapping[str, TensorProto]
    outputs: frozenset[str]

    @classmethod
    def of(cls, graph: GraphProto) -> "Scope":
        constants = {tensor.name: tensor for tensor in graph.initializer}
        return cls(dict(_tensors(graph)), constants, frozenset(value.name for value in graph.output))

    def element(self, name: str) -> int | None:
        """The TensorProto.DataType of a tensor, or None where it could not be inferred."""
        return self.tensors[name][0] if name in self.tensors else None

    def shape(self, name: str) -> Shape | None:
        return self.tensors[name][1] if name in self.tensors else None


def element_name(element: int | None) -> str:
    """The name that numpy gives to an element type: 1 → `float32`."""
    assert element is not None
    name: str = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _tensors(graph: GraphProto) -> Iterator[tuple[str, Known]]:
    for value in chain(graph.input, graph.value_info, graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type:
            tensor = value.type.tensor_type
            axes = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)
            yield value.name, (tensor.elem_type, axes if tensor.HasField("shape") else None)
    for tensor in graph.initializer:
        yield tensor.name, (tensor.data_type, tuple(tensor.dims))
