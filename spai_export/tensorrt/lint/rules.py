"""What TensorRT does not take of one node: the rules of the table that the node breaks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import repeat

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from spai_export.tensorrt.lint.operators import EVERY, MAX_RANK, TABLE, Row, Version
from spai_export.tensorrt.lint.scope import Scope, element_name

AI_ONNX = ("", "ai.onnx")
Broken = Iterator[str]  # what the node has and what TensorRT wants


def known(node: NodeProto) -> Row | None:
    """The row of a node's operator, or None if the table does not have it."""
    return TABLE.get(node.op_type) if node.domain in AI_ONNX else None


def node_rules(node: NodeProto, scope: Scope, opset: int, target: Version) -> Broken:
    """Everything of `node` that TensorRT `target` does not take; nothing if the table does not have its operator."""
    row = known(node)
    if row is None:
        return
    found = _of_release(row, target)
    if not found:
        mixed = () if row.mixes else _mixed(node, scope, opset)
        found = [*mixed, *_of_any(node, scope), *_of_row(node, row, scope)]
    yield from (f"{rule}; {row.instead}" if row.instead else rule for rule in found)


def _of_release(row: Row, target: Version) -> list[str]:
    return [f"imported since {row.since[0]}.{row.since[1]}"] if row.since > target else []


def _of_any(node: NodeProto, scope: Scope) -> Broken:
    """The rules of every operator. TensorRT builds float64 too, but in another type than the graph says."""
    elements = [scope.element(name) for name in (*node.input, *node.output)]
    if TensorProto.DOUBLE in elements:
        yield "is of float64, which TensorRT computes in float32"
    if any(scope.element(name) == TensorProto.UINT8 and name not in scope.outputs for name in node.output):
        yield "gives uint8, which TensorRT has only as a network input or output"
    ranks = [len(shape) for name in node.output if (shape := scope.shape(name)) is not None]
    if any(rank > MAX_RANK for rank in ranks):
        yield f"gives a tensor of rank {max(ranks)}, and TensorRT has no rank above {MAX_RANK}"


def _mixed(node: NodeProto, scope: Scope, opset: int) -> Broken:
    """Refuses several types where ONNX wants one; a strongly typed network casts nothing by itself."""
    kinds: dict[str, set[str]] = {}
    for parameter, name in zip(_parameters(node, opset), node.input, strict=False):
        element = scope.element(name)
        if element is not None and parameter.is_homogeneous:
            kinds.setdefault(parameter.type_str, set()).add(element_name(element))
    for kind in kinds.values():
        if len(kind) > 1:
            yield f"mixes {' and '.join(sorted(kind))}, and TensorRT casts nothing by itself"


def _parameters(node: NodeProto, opset: int) -> Iterator[onnx.defs.OpSchema.FormalParameter]:
    """The inputs that ONNX declares for an operator, the last one repeated without end; none if the opset lacks it."""
    with suppress(onnx.defs.SchemaError):
        declared = onnx.defs.get_schema(node.op_type, opset).inputs
        yield from declared
        yield from repeat(declared[-1]) if declared else ()


def _of_row(node: NodeProto, row: Row, scope: Scope) -> Broken:
    return (rule for of_row in ROW_RULES for rule in of_row(node, row, scope))


def _types(node: NodeProto, row: Row, scope: Scope) -> Broken:
    """Refuses types that the row does not have; a type that inference cannot tell is accepted."""
    for index, name in enumerate(node.input):
        element = scope.element(name)
        if index in row.typed and element in EVERY - row.types:
            yield f"input {index} is {element_name(element)}, and TensorRT takes {_listed(row.types)}"


def _listed(elements: Iterable[int]) -> str:
    *most, last = sorted(map(element_name, elements))
    return f"{', '.join(most)} or {last}" if most else last


def _constants(node: NodeProto, row: Row, scope: Scope) -> Broken:
    for index, meaning in row.constant.items():
        name = node.input[index] if index < len(node.input) else ""
        if name and name not in scope.constants:
            yield f"{meaning} is computed, and TensorRT wants an initializer"


def _zeros(node: NodeProto, row: Row, scope: Scope) -> Broken:
    for index, meaning in row.zero.items():
        value = scope.constants.get(node.input[index]) if index < len(node.input) else None
        if value is not None and numpy_helper.to_array(value).astype("float32").any():
            yield f"{meaning} is not 0, and TensorRT wants 0"


def _shape(node: NodeProto, row: Row, scope: Scope) -> Broken:
    shape = scope.shape(node.input[0])
    if shape is None:
        return
    if row.ranks and len(shape) not in row.ranks:
        yield f"its input is of rank {len(shape)}, and TensorRT takes rank {' or '.join(map(str, row.ranks))}"
    if row.last_axis and shape[-1] is not None and shape[-1] not in row.last_axis:
        least, most = row.last_axis[0], row.last_axis[-1]
        yield f"its input ends in an axis of {shape[-1]}, and TensorRT takes {least} to {most}"


def _attributes(node: NodeProto, row: Row, _: Scope) -> Broken:
    for attribute in node.attribute:
        if attribute.name not in row.attributes:
            continue
        allowed, value = row.attributes[attribute.name], helper.get_attribute_value(attribute)
        items = [item.decode() if isinstance(item, bytes) else item for item in _items(value)]
        if not allowed:
            yield f"has the attribute {attribute.name}, which TensorRT does not take"
        elif not set(items) <= set(allowed):
            yield f"{attribute.name} is {', '.join(map(str, items))}, and TensorRT takes {', '.join(map(str, allowed))}"


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _counts(node: NodeProto, row: Row, _: Scope) -> Broken:
    for names, most, verb in ((node.input, row.inputs, "takes"), (node.output, row.outputs, "gives")):
        used = max((index + 1 for index, name in enumerate(names) if name), default=0)
        if most is not None and used > most:
            yield f"{verb} {used} tensors, and in TensorRT it {verb} {most} at most"


ROW_RULES: tuple[Callable[[NodeProto, Row, Scope], Broken], ...] = (
    _types,
    _constants,
    _zeros,
    _shape,
    _attributes,
    _counts,
)
