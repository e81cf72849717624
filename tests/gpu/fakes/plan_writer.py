"""`spai-export --trt` for a GPU that is not there: it writes plans that the fake TensorRT runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from spai_export.tensorrt import plans
from spai_export.tensorrt.builder import BuildOptions, InputShape, PlanBuilder, TimingCache
from spai_runtime.engines.tensorrt_log import log_of
from tests.gpu.fakes import fake_tensorrt
from tests.gpu.fakes.fake_machine import Machine
from tests.gpu.fakes.fake_tensorrt_plans import Header, write_plan
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT


@dataclass
class Written:
    """Plans that an export wrote.

    :param layers: what the engine inspector says of the next; None: something plausible
    """

    fake: FakeTensorRT
    layers: list[dict[str, Any]] | None = None
    headers: list[Header] = field(default_factory=list)


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine, version: str = "11.4.0.106") -> Written:
    """Until the test ends, an export finds the fake TensorRT, and writes plans where it would let TensorRT build."""
    fake = fake_tensorrt.install(monkeypatch, machine, version)
    written = Written(fake)

    class PlanWriter(PlanBuilder):
        """Parses nothing and builds nothing; inspects by the fake's engine inspector."""

        def __init__(self, trt: Any, options: BuildOptions) -> None:
            self._trt, self._options, self._log, self._timings = trt, options, log_of(trt), TimingCache(None)
            self._log.clear()

        def build(self, onnx: Path, shape: InputShape, configure: Callable[[Any], None] | None = None) -> bytes:  # noqa: ARG002
            layers = plausible_layers(onnx, fake.version) if written.layers is None else written.layers
            profile = {shape.name: (shape.min, shape.opt, shape.max)}
            header = Header(fake.version, fake.capability, profiles=[profile], layers=layers)
            written.headers.append(header)
            return write_plan(header, onnx.read_bytes())

    monkeypatch.setattr(plans, "PlanBuilder", PlanWriter)
    return written


def plausible_layers(path: Path, version: str) -> list[dict[str, Any]]:
    """A layer a node, but the products on both sides of a Softmax and what is between them in one."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    values = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    field_ = "Format/Datatype" if version.startswith("10.") else "Datatype"
    return [
        {
            "Name": f"{'_gemm_mha_v2' if len(nodes) > 1 else nodes[0].op_type}_myl0_{index}",
            "LayerType": "kgen",
            "Inputs": [
                {"Name": name, field_: onnx.helper.tensor_dtype_to_np_dtype(values[name]).name.capitalize()}
                for name in nodes[0].input
                if values.get(name)
            ],
            "Outputs": [],
            "TacticName": "",
            "Metadata": "\x1f".join(f"[ONNX Layer: {node.name}]" for node in nodes),
        }
        for index, nodes in enumerate(fused(list(graph.node)))
    ]


def fused(nodes: list[onnx.NodeProto]) -> Iterator[list[onnx.NodeProto]]:
    """The nodes in groups: from the last product before a Softmax to the first after it, and each of the others."""
    products = [index for index, node in enumerate(nodes) if node.op_type == "MatMul"]
    softmaxes = [index for index, node in enumerate(nodes) if node.op_type == "Softmax"]
    ends = {
        max(index for index in products if index < at): min(index for index in products if index > at)
        for at in softmaxes
        if products and products[0] < at < products[-1]
    }
    index = 0
    while index < len(nodes):
        end = ends.get(index, index)
        yield nodes[index : end + 1]
        index = end + 1
