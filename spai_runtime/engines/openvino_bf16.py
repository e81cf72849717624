"""The choice of an encoder's products that OpenVINO computes in bf16, on processors that multiply bf16 fast.

OpenVINO's own hint lowers the whole graph, with the spectral filter and the statistics of tokens, and moved a score of
the demo detector by 0.06. Here a graph in fp32 gets types of its own, which OpenVINO keeps if it is asked to compute in
fp32. Attention, MLP and projectors are in bf16, each from its first product to its last. These stay in fp32: what the
patch embedding's convolution depends on, every normalisation, the residual stream, and what depends on a reduction,
which are statistics and spectral context. They also do so in the graphs that spai-export writes in half precision.
"""

from collections.abc import Iterable, Sequence
from typing import Any

_PRODUCT = "MatMul"

# What may lie between two products that are in bf16; of several inputs that are no constants, all must be in bf16.
_BETWEEN = frozenset(
    (
        "Add",
        "Concat",
        "Gelu",
        "Multiply",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Squeeze",
        "Swish",
        "Transpose",
        "Unsqueeze",
        "VariadicSplit",
    )
)


def lower(model: Any) -> int:
    """Give the products of an encoder, and what lies between them, the type bf16, in place.

    :param model: an openvino.Model in fp32
    :returns: how many products now have it
    """
    from openvino import Type, opset13  # noqa: PLC0415

    nodes = model.get_ordered_ops()
    chosen = _chosen(nodes, Type.f32)
    lowered = [node for node in nodes if node.get_name() in chosen]
    casts: dict[tuple[str, int], Any] = {}
    for node in lowered:
        for value in node.inputs():
            source = value.get_source_output()
            if source.get_element_type() == Type.f32 and _name(source) not in chosen:
                key = _name(source), source.get_index()
                casts.setdefault(key, opset13.convert(source, "bf16"))
                value.replace_source_output(casts[key].output(0))
    for node in lowered:
        for output in node.outputs():
            outside = [user for user in output.get_target_inputs() if user.get_node().get_name() not in chosen]
            if outside:
                back = opset13.convert(output, "f32")
                for user in outside:
                    user.replace_source_output(back.output(0))
    model.validate_nodes_and_infer_types()
    return sum(node.get_type_name() == _PRODUCT for node in lowered)


def _chosen(nodes: Sequence[Any], single: Any) -> set[str]:
    """The names of the nodes that shall be in bf16.

    :param nodes: in topological order
    :param single: the type of fp32
    """
    barred, chosen = _before_convolutions(nodes) | _behind_reductions(nodes), set[str]()
    for node in nodes:
        if node.get_name() in barred:
            continue
        sources = [source for source in _sources(node) if source.get_element_type() == single]
        live = [_name(source) for source in sources if source.get_node().get_type_name() != "Constant"]
        kind = node.get_type_name()
        if (kind == _PRODUCT and live) or (kind in _BETWEEN and live and chosen.issuperset(live)):
            chosen.add(node.get_name())
    return chosen


def _before_convolutions(nodes: Sequence[Any]) -> set[str]:
    """The convolutions, and all that they depend on."""
    found: set[str] = set()
    for node in reversed(nodes):
        if node.get_type_name() == "Convolution" or node.get_name() in found:
            found.update((node.get_name(), *map(_name, _sources(node))))
    return found


def _behind_reductions(nodes: Sequence[Any]) -> set[str]:
    """The reductions, and all that depends on them; a normalisation is one node, MVN, and does not count as one."""
    found: set[str] = set()
    for node in nodes:
        if node.get_type_name().startswith("Reduce") or not found.isdisjoint(map(_name, _sources(node))):
            found.add(node.get_name())
    return found


def _sources(node: Any) -> Iterable[Any]:
    return (value.get_source_output() for value in node.inputs())


def _name(output: Any) -> str:
    return str(output.get_node().get_name())
