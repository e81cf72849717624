"""Did TensorRT build what the graph asks for: its products in half precision, its attention as one kernel?

Two readings are compared: the graph's (`Wanted`), and the engine inspector's report on the plan
(`Layers`), JSON of one entry a layer. TensorRT 10 gives a tensor's type and format in one field, `Format/Datatype`;
TensorRT 11 splits it (NVIDIA, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"). `Metadata` names the
ONNX nodes that a layer came from.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, NodeProto, TensorProto

UNREADABLE = "the engine inspector's report could not be read"
SHOWN = 6  # names in one sentence

_ONNX_TYPES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")
_PASSING = ("Cast", "QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape")

# How a layer's tensors tell their type ("Half", "Row major linear FP16 format"), and, where the report has "N/A due to
# dynamic shapes" instead, how the name of its kernel does ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_…").
_TYPES = {
    "fp32": r"\b(float|float32|fp32)\b",
    "fp16": r"\b(half|float16|fp16)\b",
    "bf16": r"\b(bfloat16|bf16)\b",
    "int8": r"\bint8\b",
    "fp8": r"\b(fp8|float8|e4m3)",
}
_KERNELS = {
    "fp32": r"(?<!t)f32f32|sgemm",
    "fp16": r"f16f16|h884|h1688|h16816|hgemm",
    "bf16": r"bf16bf16",
    "int8": r"i8i8|imma",
    "fp8": r"e4m3e4m3",
}
_FUSED = re.compile(r"(?<![a-z0-9])f?mha(?![a-z0-9])|flash_?attention")  # _gemm_mha_v2, fmha_v2_…; never a letter more


@dataclass(frozen=True)
class Wanted:
    """What a graph asks for.

    :param products: the type of each product and convolution, by the node's name: fp32, fp16, bf16, int8 or fp8
    :param attentions: the nodes of each: q·kᵀ, Softmax and ·v, or one Attention
    """

    products: Mapping[str, str]
    attentions: Sequence[frozenset[str]]

    @classmethod
    def of(cls, path: Path) -> "Wanted":
        """:param path: the path of an ONNX graph"""
        graph = _Graph(onnx.shape_inference.infer_shapes(onnx.load(path)).graph)
        products = {node.name: graph.product_type(node) for node in graph.nodes if node.op_type in _PRODUCTS}
        return cls(products, list(graph.attentions()))


class _Graph:
    """The nodes of a graph, and the nodes that a tensor came through."""

    def __init__(self, graph: GraphProto) -> None:
        self.nodes = list(graph.node)
        self._makers = {output: node for node in graph.node for output in node.output}
        values = [*graph.value_info, *graph.input, *graph.output]
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}

    def product_type(self, node: NodeProto) -> str:
        """A product's type: eight bits if both factors come from a DequantizeLinear, else what the graph gives them."""
        factors = {self._type(name) for name in node.input[:2]}
        return factors.pop() if len(factors) == 1 else self._name(node.input[0])

    def attentions(self) -> Iterator[frozenset[str]]:
        sums = defaultdict(set)  # the products that take the output of a Softmax, by its name
        for node in self.nodes:
            if node.op_type == "Attention":
                yield frozenset({node.name})
            elif node.op_type == "MatMul" and (source := self._source(node.input[0])) and source.op_type == "Softmax":
                sums[source.name].add(node.name)
        for node in self.nodes:
            if node.name in sums and (source := self._source(node.input[0])) and source.op_type == "MatMul":
                yield frozenset({source.name, node.name, *sums[node.name]})

    def _way(self, name: str) -> Iterator[NodeProto]:
        """The nodes that a tensor came through, back to the first that computes something."""
        while (node := self._makers.get(name)) is not None:
            yield node
            if node.op_type not in _PASSING:
                return
            name = node.input[0]

    def _source(self, name: str) -> NodeProto | None:
        return next((node for node in self._way(name) if node.op_type not in _PASSING), None)

    def _type(self, name: str) -> str:
        for node in self._way(name):
            if node.op_type == "DequantizeLinear":
                return self._name(node.input[0])
        return self._name(name)

    def _name(self, tensor: str) -> str:
        return _ONNX_TYPES.get(self._types.get(tensor, TensorProto.UNDEFINED), "another type")


@dataclass(frozen=True)
class Layer:
    """A layer of a plan.

    :param nodes: the ONNX nodes that it came from
    :param types: the types of its inputs, outputs and constants: fp32, fp16, bf16, int8, fp8; empty if the report has
        none
    :param fused: whether its kernel computes a whole attention
    """

    nodes: frozenset[str]
    types: frozenset[str]
    fused: bool

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Layer":
        """:param entry: an entry of the report's `Layers`"""
        kernel = " ".join(str(entry.get(key, "")) for key in ("Name", "LayerType", "TacticName")).lower()
        types = _types_in(_tensors(entry), _TYPES) or _types_in([str(entry.get("TacticName", ""))], _KERNELS)
        return cls(_nodes(entry), types, _FUSED.search(kernel) is not None)


@dataclass(frozen=True)
class Layers:
    """The layers in a report of the engine inspector; None where the report has an unknown layout."""

    layers: Sequence[Layer] | None

    @classmethod
    def of(cls, text: str) -> "Layers":
        """:param text: JSON, as a plan built with detailed profiling verbosity gives it"""
        try:  # not strict: what separates the names in Metadata is a bare control character in some versions
            return cls([Layer.of(entry) for entry in json.loads(text, strict=False)["Layers"]])
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(None)

    def summary(self, wanted: Wanted) -> list[str]:
        """Sentences for the user: how many attentions are fused, and which products are not in the type asked for."""
        if not self.layers:
            return [UNREADABLE]
        if not any(layer.nodes & wanted.products.keys() for layer in self.layers):
            return ["the engine inspector's report names no node of the graph"]
        return [*self._attention(wanted), *self._products(wanted)]

    def _attention(self, wanted: Wanted) -> Iterator[str]:
        total, loose = len(wanted.attentions), [nodes for nodes in wanted.attentions if not self._is_fused(nodes)]
        which = f"; not those of {_listed(min(nodes) for nodes in loose)}" if 0 < len(loose) < total else ""
        if total:
            yield f"{total - len(loose)} of {total} attentions are fused{which}"

    def _is_fused(self, nodes: frozenset[str]) -> bool:
        """Whether an attention is fused: it has a kernel made for it, or one layer has all of it."""
        assert self.layers is not None
        parts = [layer for layer in self.layers if layer.nodes & nodes]
        return any(layer.fused for layer in parts) or (len(parts) == 1 and nodes <= parts[0].nodes)

    def _products(self, wanted: Wanted) -> Iterator[str]:
        for precision in sorted(set(wanted.products.values()) - {"fp32"}):
            found = {name: self._types_of(name) for name, kind in wanted.products.items() if kind == precision}
            found = {name: types for name, types in found.items() if types}
            lost = {name: types for name, types in found.items() if precision not in types}
            count = f"{len(found) - len(lost)} of {len(found)} {precision} products run in {precision}"
            listed = _listed(f"{name} ({'/'.join(sorted(types))})" for name, types in lost.items())
            yield f"{count}; fell out of it: {listed}" if lost else count
        single = list(wanted.products.values()).count("fp32")
        yield f"{single} of {len(wanted.products)} products are fp32 in the graph"

    def _types_of(self, node: str) -> frozenset[str]:
        assert self.layers is not None
        return frozenset().union(*(layer.types for layer in self.layers if node in layer.nodes))


def _tensors(entry: Mapping[str, Any]) -> Iterator[str]:
    """What an entry says of the types of its tensors."""
    for role in ("Inputs", "Outputs", "Constants"):
        for tensor in entry.get(role) or ():
            yield " ".join(str(tensor.get(key, "")) for key in ("Format/Datatype", "Datatype", "DataType", "Format"))
    yield str((entry.get("Weights") or {}).get("Type", ""))


def _types_in(texts: Iterable[str], patterns: Mapping[str, str]) -> frozenset[str]:
    text = "\n".join(texts).lower()
    return frozenset(name for name, pattern in patterns.items() if re.search(pattern, text))


def _nodes(entry: Mapping[str, Any]) -> frozenset[str]:
    """A layer's nodes from its metadata, else from its name, `a + b` or `a+b_myl0_7`."""
    named = nodes_named(str(entry.get("Metadata") or ""))
    return named or frozenset(re.split(r"\s*\+\s*", re.sub(r"_myl\d+(_\d+)?$", "", str(entry.get("Name", "")))))


def nodes_named(metadata: str) -> frozenset[str]:
    """The ONNX nodes that a layer came from: a and b of `[ONNX Layer: a]…[ONNX Layer: b]`."""
    return frozenset(re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata))


def _listed(names: Iterable[str]) -> str:
    shown: Collection[str] = sorted(names)
    more = len(shown) - SHOWN
    return ", ".join(sorted(shown)[:SHOWN]) + (f" and {more} more" if more > 0 else "")
