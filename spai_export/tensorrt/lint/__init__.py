"""Checks an ONNX graph against what TensorRT takes, without TensorRT: what will not build is known at once.

The table (operators.py) says what TensorRT takes of each operator, and as much as a graph shows of this is checked. A
graph with findings does not build, or computes in other types than it says. A graph without findings can still fail to
build: for lack of memory or of a kernel, or for an operator that the table does not have, which `check` tells.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, shape_inference

from spai_export.onnx import ExportError
from spai_export.tensorrt.lint.operators import OPSETS, Version
from spai_export.tensorrt.lint.rules import AI_ONNX, known, node_rules
from spai_export.tensorrt.lint.scope import Scope

VERSIONS = ("10.12", "11.4")  # the ends of the range in which an exported graph must build
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class LintError(ExportError):
    """A graph that TensorRT does not import, and why, in one sentence."""


@dataclass(frozen=True)
class Finding:
    """One thing in a graph that TensorRT does not take.

    :param node: the node's name, or that of its first output; empty where the whole graph is meant
    :param rule: what the graph has and what TensorRT wants, in one sentence
    """

    node: str
    operator: str
    rule: str

    def __str__(self) -> str:
        return f"{self.operator} ({self.node}): {self.rule}" if self.node else f"{self.operator}: {self.rule}"


def check(path: Path, versions: Iterable[str] = VERSIONS) -> list[str]:
    """Checks the graph at `path` against each of `versions`.

    :returns: a sentence on the operators that the table does not speak of, if there are any: TensorRT may take them
    :raises LintError: there are findings; it names the first one, how many more there are, and for which version
    """
    model = _with_types(onnx.load(str(path), load_external_data=False))
    for version in versions:
        findings = _findings(model, version)
        if findings:
            more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
            raise LintError(f"{path.name} has what TensorRT {version} does not import: {findings[0]}{more}")
    names = ", ".join(unknown(model))
    return [f"{path.name} holds what was not tried with TensorRT, and may not build there: {names}"] if names else []


def lint(model: onnx.ModelProto | Path, version: str | Version = VERSIONS[0]) -> list[Finding]:
    """All in `model` that TensorRT `version`, 10.12 or later, is known not to take, in the order of the nodes."""
    if isinstance(model, Path):
        model = onnx.load(str(model), load_external_data=False)
    return _findings(_with_types(model), version)


def unknown(model: onnx.ModelProto) -> list[str]:
    """The operators in `model` that the table does not speak of, each once."""
    return list(dict.fromkeys(node.op_type for node in model.graph.node if known(node) is None))


def _findings(typed: onnx.ModelProto, version: str | Version) -> list[Finding]:
    target = _parsed(version)
    opset = next((entry.version for entry in typed.opset_import if entry.domain in AI_ONNX), 1)
    return [*_opset_findings(opset, target), *_graph_findings(typed.graph, opset, target)]


def _parsed(version: str | Version) -> Version:
    """A version as numbers: `"10.12.0.36"` → (10, 12)."""
    if isinstance(version, str):
        major, minor = version.split(".")[:2]
        version = int(major), int(minor)
    assert version >= OPSETS[0].since, "the table begins at TensorRT 10.12"
    return version


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with every tensor's type inferred.

    Inference is lenient, since a graph that mixes types is to be described, not refused with onnx's own message.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type in _FLOATS and len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")  # weights say nothing of types and make inference slow
    return shape_inference.infer_shapes(copy, data_prop=True)


def _opset_findings(opset: int, target: Version) -> Iterator[Finding]:
    read = next(opsets for opsets in reversed(OPSETS) if opsets.since <= target)
    if not read.oldest <= opset <= read.newest:
        yield Finding(
            "", "ai.onnx", f"the graph is of opset {opset}, and TensorRT reads {read.oldest} to {read.newest}"
        )


def _graph_findings(graph: onnx.GraphProto, opset: int, target: Version) -> Iterator[Finding]:
    scope = Scope.of(graph)
    for node in graph.node:
        for rule in node_rules(node, scope, opset, target):
            yield Finding(node.name or next(iter(node.output), ""), node.op_type, rule)
