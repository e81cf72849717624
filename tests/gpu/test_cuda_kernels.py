"""Does ONNX Runtime have a CUDA kernel for every node of an exported encoder? One that it runs on the CPU costs two
copies a batch, and a CUDA graph cannot be recorded around it: such a session is refused.

The table is of microsoft/onnxruntime, docs/OperatorKernels.md at 001d12d, "CUDAExecutionProvider": versions that have a
kernel, and the floating types of the newest. A kernel without an end is for the one version that it begins with
(onnxruntime/core/framework/kernel_registry.cc, VerifyVersion), so that a new opset can lose an operator: Pad did.
"""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from spai_export.choices import Precision
from spai_export.onnx import FUSED_OPSET, OPSET, export_encoder
from spai_export.precision import cast
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SPAIConfig

FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
ALL = {FLOAT, HALF, BFLOAT}
OPEN = None  # a kernel without an end

Ranges = list[tuple[int, int | None]]

KERNELS: dict[str, tuple[Ranges, set[int]]] = {
    "Add": ([(14, OPEN)], ALL),
    "Attention": ([(23, 23), (24, OPEN)], ALL),
    "Cast": ([(13, 18), (19, 20), (21, 22), (23, OPEN)], ALL),
    "Clip": ([(13, OPEN)], {FLOAT, HALF}),
    "Concat": ([(13, OPEN)], ALL),
    "Conv": ([(11, 21), (22, OPEN)], {FLOAT, HALF}),
    "Div": ([(14, OPEN)], ALL),
    "Gather": ([(13, OPEN)], ALL),
    "Gelu": ([(20, OPEN)], ALL),
    "Gemm": ([(13, OPEN)], ALL),
    "LayerNormalization": ([(17, OPEN)], ALL),
    "MatMul": ([(13, OPEN)], ALL),
    "Mul": ([(14, OPEN)], ALL),
    "Pad": ([(18, OPEN)], {FLOAT, HALF}),
    "Pow": ([(15, OPEN)], ALL),
    "ReduceL2": ([(18, OPEN)], {FLOAT, HALF}),
    "ReduceMean": ([(18, OPEN)], {FLOAT, HALF}),
    "ReduceSum": ([(13, OPEN)], ALL),
    "Reshape": ([(14, 18), (19, 20), (21, 22), (23, OPEN)], ALL),
    "Slice": ([(13, OPEN)], ALL),
    "Softmax": ([(13, OPEN)], ALL),
    "Split": ([(18, OPEN)], ALL),
    "Sqrt": ([(13, OPEN)], ALL),
    "Squeeze": ([(13, 20), (21, 22), (23, OPEN)], ALL),
    "Sub": ([(14, OPEN)], ALL),
    "Transpose": ([(13, 20), (21, 22), (23, OPEN)], ALL),
    "Unsqueeze": ([(13, 20), (21, 22), (23, OPEN)], ALL),
}


def without_kernel(model: onnx.ModelProto) -> list[str]:
    """Nodes that ONNX Runtime would leave to the CPU, as `operator-version of type`."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    elements = {value.name: value.type.tensor_type.elem_type for value in values}
    elements |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    opset = model.opset_import[0].version
    return [
        f"{node.op_type}-{version} of {sorted(types)}"
        for node in graph.node
        for version in [onnx.defs.get_schema(node.op_type, opset).since_version]
        for types in [{elements[name] for name in (*node.input, *node.output) if name} & ALL]
        if not has_kernel(node.op_type, version, types)
    ]


def has_kernel(operator: str, version: int, types: set[int]) -> bool:
    ranges, known = KERNELS.get(operator, ([], set()))
    return types <= known and any(version == first or (last and first <= version <= last) for first, last in ranges)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16])
def test_every_node_has_a_kernel(
    tiny_model: SPAI, tiny_config: SPAIConfig, tmp_path: Path, precision: Precision, fused: bool
) -> None:
    path, opset = tmp_path / "encoder.onnx", FUSED_OPSET if fused else OPSET
    shape = tiny_config.tile_size, tiny_config.tile_size
    export_encoder(cast(SPEC, tiny_model.encoder, precision, fused=fused), shape, path, opset)
    assert without_kernel(onnx.load(str(path))) == []


def test_what_has_none_is_found() -> None:
    graph = "g (float[1, 4] x, int64[4] p) => (float[1, 6] y) {{ y = Pad(x, p) }}"
    text = f'<ir_version: 9, opset_import: ["" : {{opset}}]> {graph}'
    found = {opset: without_kernel(onnx.parser.parse_model(text.format(opset=opset))) for opset in (18, 20, 23)}
    assert found == {18: [], 20: [f"Pad-19 of {[FLOAT]}"], 23: [f"Pad-23 of {[FLOAT]}"]}
