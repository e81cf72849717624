"""What TensorRT does not take of one node: a rule of the table that it breaks, with the rule's source."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import repeat

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from spai_export.tensorrt.lint.operators import (
    DOMAINS_SOURCE,
    FLOAT64_SOURCE,
    MAX_RANK,
    MIXED_SOURCE,
    OPERATORS,
    RANK_SOURCE,
    TABLE,
    UINT8_SOURCE,
    Row,
    Version,
)
from spai_export.tensorrt.lint.scope import Scope, element_name

AI_ONNX = ("", "ai.onnx")
UINT8_WANTED = "which TensorRT has only as a network input or output, with a Cast between it and float32 or float16"
Broken = Iterator[tuple[str, str]]  # (what the node has and what TensorRT wants, source)


def node_rules(node: NodeProto, scope: Scope, opset: int, target: Version) -> Broken:
    """Everything of `node` that TensorRT `target` does not take; the graphs that it holds are another matter."""
    if node.domain not in AI_ONNX:
        yield f"is of the domain {node.domain}, and TensorRT imports ai.onnx alone", DOMAINS_SOURCE
        return
    row = TABLE.get(node.op_type)
    if row is None:
        yield "is not in the table of what TensorRT imports", OPERATORS
        return
    if row.since is None or row.since > target:
        since = f"imported since {row.since[0]}.{row.since[1]}" if row.since else "no TensorRT imports it"
        yield f"{since}; {row.instead}" if row.instead else since, row.source
        return
    yield from _mixed(node, scope, opset)
    for every in (_uint8, _float64, _rank):
        yield from every(node, scope)
    for of_row in ROW_RULES:
        yield from ((rule, row.source) for rule in of_row(node, row, scope))


def _uint8(node: NodeProto, scope: Scope) -> Broken:
    sides = ("reads", node.input, scope.inputs, node.output), ("gives", node.output, scope.outputs, node.input)
    for verb, names, ends, others in sides:
        for name in names:
            if scope.element(name) == TensorProto.UINT8 and not (
                node.op_type == "Cast"
                and name in ends
                and scope.element(others[0]) in (None, TensorProto.FLOAT, TensorProto.FLOAT16)
            ):
                yield f"{verb} uint8, {UINT8_WANTED}", UINT8_SOURCE


def _float64(node: NodeProto, scope: Scope) -> Broken:
    if any(scope.element(name) == TensorProto.DOUBLE for name in (*node.input, *node.output)):
        yield "is of float64, which TensorRT computes in float32", FLOAT64_SOURCE


def _rank(node: NodeProto, scope: Scope) -> Broken:
    ranks = [len(shape) for name in node.output if (shape := scope.shape(name)) is not None]
    if any(rank > MAX_RANK for rank in ranks):
        yield f"gives a tensor of rank {max(ranks)}, and TensorRT has no rank above {MAX_RANK}", RANK_SOURCE


def _mixed(node: NodeProto, scope: Scope, opset: int) -> Broken:
    """Inputs that ONNX wants of one type are of one type; a strongly typed network casts nothing by itself."""
    kinds: dict[str, set[str]] = {}
    for parameter, name in zip(_parameters(node, opset), node.input, strict=False):
        element = scope.element(name)
        if element is not None and parameter.is_homogeneous:
            kinds.setdefault(parameter.type_str, set()).add(element_name(element))
    for kind in kinds.values():
        if len(kind) > 1:
            yield f"mixes {' and '.join(sorted(kind))}, and TensorRT casts nothing by itself", MIXED_SOURCE


def _parameters(node: NodeProto, opset: int) -> Iterator[onnx.defs.OpSchema.FormalParameter]:
    """The inputs that ONNX declares for an operator, the last of them without end; none if the opset has it not."""
    with suppress(onnx.defs.SchemaError):
        declared = onnx.defs.get_schema(node.op_type, opset).inputs
        yield from declared
        yield from repeat(declared[-1]) if declared else ()


def _types(node: NodeProto, row: Row, scope: Scope) -> Iterator[str]:
    for index, name in enumerate(node.input):
        if row.types and index in row.typed and _wrong(scope.element(name), row.types):
            yield f"input {index} is {element_name(scope.element(name))}, and TensorRT takes {_listed(row.types)}"


def _results(node: NodeProto, row: Row, scope: Scope) -> Iterator[str]:
    if row.results and _wrong(scope.element(node.output[0]), row.results):
        yield f"gives {element_name(scope.element(node.output[0]))}, and TensorRT gives {_listed(row.results)}"


def _wrong(element: int | None, allowed: frozenset[int]) -> bool:
    """uint8 and float64 have rules of their own, and what inference cannot tell is given the benefit of the doubt."""
    return element not in (None, TensorProto.UINT8, TensorProto.DOUBLE, *allowed)


def _listed(elements: Iterable[int]) -> str:
    *most, last = sorted(map(element_name, elements))
    return f"{', '.join(most)} or {last}" if most else last


def _constants(node: NodeProto, row: Row, scope: Scope) -> Iterator[str]:
    for index, meaning in row.constant.items():
        name = node.input[index] if index < len(node.input) else ""
        if name and scope.constant(name) is None:
            yield f"{meaning} is computed, and TensorRT wants an initializer"


def _zeros(node: NodeProto, row: Row, scope: Scope) -> Iterator[str]:
    for index, meaning in row.zero.items():
        value = scope.constant(node.input[index]) if index < len(node.input) else None
        if value is not None and numpy_helper.to_array(value).astype("float32").any():
            yield f"{meaning} is not 0, and TensorRT wants 0"


def _ranks(node: NodeProto, row: Row, scope: Scope) -> Iterator[str]:
    for index, name in enumerate(node.input):
        shape = scope.shape(name)
        if shape is None:
            continue
        if len(shape) not in row.ranks.get(index, (len(shape),)):
            wanted = " or ".join(map(str, row.ranks[index]))
            yield f"input {index} is of rank {len(shape)}, and TensorRT takes rank {wanted}"
        elif index in row.last_axis and (shape[-1] or 0) > row.last_axis[index]:
            yield f"input {index} ends in an axis of {shape[-1]}, and TensorRT takes {row.last_axis[index]} at most"


def _attributes(node: NodeProto, row: Row, _: Scope) -> Iterator[str]:
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


def _counts(node: NodeProto, row: Row, _: Scope) -> Iterator[str]:
    for names, most, verb in ((node.input, row.inputs, "takes"), (node.output, row.outputs, "gives")):
        used = max((index + 1 for index, name in enumerate(names) if name), default=0)
        if most is not None and used > most:
            yield f"{verb} {used} tensors, and in TensorRT it {verb} {most} at most"


ROW_RULES: tuple[Callable[[NodeProto, Row, Scope], Iterator[str]], ...] = (
    _types,
    _results,
    _constants,
    _zeros,
    _ranks,
    _attributes,
    _counts,
)
