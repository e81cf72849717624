"""Checks an ONNX graph against what TensorRT imports, with no TensorRT: an export that will not build is known at once.

What is checked is what the sources of the table (operators.py) state and a graph shows. A graph without findings can
still fail to build, for lack of memory or of a kernel; one with findings fails, or computes in types that it does not
say.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, inliner, shape_inference

from spai_export.onnx import ExportError
from spai_export.tensorrt.lint.operators import OPSETS, Version
from spai_export.tensorrt.lint.rules import AI_ONNX, node_rules
from spai_export.tensorrt.lint.scope import Scope

VERSIONS = ("10.12", "11.4")  # the ends of the range in which an exported graph must build
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class LintError(ExportError):
    """A graph that TensorRT does not import, and why, in one sentence."""


@dataclass(frozen=True)
class Finding:
    """One thing in a graph that TensorRT does not take.

    :param node: its name, or that of its first output; empty where the whole graph is meant
    :param rule: what the graph has and what TensorRT wants, in one sentence
    :param source: where the rule is written
    """

    node: str
    operator: str
    rule: str
    source: str

    def __str__(self) -> str:
        return f"{self.operator} ({self.node}): {self.rule}" if self.node else f"{self.operator}: {self.rule}"


def check(path: Path, versions: Iterable[str] = VERSIONS) -> None:
    """Checks the graph at `path` against each of `versions`.

    :raises LintError: naming the first finding, how many more there are, and for which version
    """
    for version in versions:
        findings = lint(path, version)
        if findings:
            more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
            raise LintError(f"{path.name} has what TensorRT {version} does not import: {findings[0]}{more}")


def lint(model: onnx.ModelProto | Path, version: str | Version = VERSIONS[0]) -> list[Finding]:
    """Everything in `model` that TensorRT `version`, 10.12 or later, does not import, in the order of its nodes."""
    if isinstance(model, Path):
        model = onnx.load(str(model), load_external_data=False)
    target = _parsed(version)
    opset = next((entry.version for entry in model.opset_import if entry.domain in AI_ONNX), 1)
    scope = Scope.of(_with_types(model).graph)
    return [*_opset_findings(opset, target), *_graph_findings(scope, opset, target)]


def _parsed(version: str | Version) -> Version:
    """`"10.12.0.36"` → (10, 12)."""
    if isinstance(version, str):
        major, minor = version.split(".")[:2]
        version = int(major), int(minor)
    assert version >= OPSETS[0].since, "the table begins at TensorRT 10.12"
    return version


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with functions inlined and every tensor's type inferred.

    Inference is lenient, since a graph that mixes types is to be described, not refused with onnx's own message.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type in _FLOATS and len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")  # weights say nothing of types and make inference slow
    if copy.functions:
        copy = inliner.inline_local_functions(copy)
    return shape_inference.infer_shapes(copy, data_prop=True)


def _opset_findings(opset: int, target: Version) -> Iterator[Finding]:
    read = next(opsets for opsets in reversed(OPSETS) if opsets.since <= target)
    if not read.oldest <= opset <= read.newest:
        rule = f"the graph is of opset {opset}, and TensorRT reads {read.oldest} to {read.newest}"
        yield Finding("", "ai.onnx", rule, read.source)


def _graph_findings(scope: Scope, opset: int, target: Version) -> Iterator[Finding]:
    for node in scope.graph.node:
        for rule, source in node_rules(node, scope, opset, target):
            yield Finding(node.name or next(iter(node.output), ""), node.op_type, rule, source)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graph_findings(scope.inside(inner), opset, target)
