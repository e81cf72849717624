"""Small graphs of one operator: one of each that the table of operators speaks of, in any element type."""

import re
from collections.abc import Mapping

import onnx
from onnx import TensorProto, parser

ELEMENTS = {
    TensorProto.FLOAT: "float",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.UINT8: "uint8",
}
NEW = "Attention", "RMSNormalization"  # in opset 23


def model(text: str, opset: int = 20, domain: str = "") -> onnx.ModelProto:
    """A graph in ONNX's text form: `g (float[N] x) => (float[N] y) { y = Relu(x) }`."""
    domains = ", ".join(
        f'"{name}": {number}' for name, number in {"": opset, domain: opset if not domain else 1}.items()
    )
    return parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]>\n{text}")


def graph_of(operator: str, element: int, second: int | None = None) -> onnx.ModelProto:
    """The operator's graph whose inputs are of that type.

    :param second: type of its second input, where that is another one
    """
    kinds = {"T": ELEMENTS[element], "U": ELEMENTS[element if second is None else second]}
    text = re.sub(r"\b[TU]\b", lambda found: kinds[found.group()], TEXTS[operator])
    return model(f"g {text}", 23 if operator in NEW else 20)


def _one(names: str) -> Mapping[str, str]:
    return {name: f"(T[N,2,4,4] x) => (T[N,2,4,4] y) {{ y = {name} (x) }}" for name in names.split()}


def _two(names: str) -> Mapping[str, str]:
    return {name: f"(T[N,4,4] x, U[N,4,4] z) => (T[N,4,4] y) {{ y = {name} (x, z) }}" for name in names.split()}


def _reduced(names: str) -> Mapping[str, str]:
    return {name: f"(T[N,4] x) => (T[N,1] y) <int64[1] a = {{1}}> {{ y = {name} (x, a) }}" for name in names.split()}


# T is the type that is tried, and U that of the second input, which is the same where nothing is mixed. A graph has
# nothing of a known value in these types, since ONNX's text form has no constants of all of them.
TEXTS: Mapping[str, str] = {
    **_one("Cos Gelu HardSigmoid HardSwish Identity LeakyRelu Neg Not Reciprocal Relu Sigmoid Sin Softmax Sqrt"),
    **_two("Add Div MatMul Mul Pow Sub"),
    **_reduced("ReduceL2 ReduceMax ReduceMean ReduceSum"),
    "Attention": "(T[N,2,5,16] q, U[N,2,5,16] k, T[N,2,5,16] v) => (T[N,2,5,16] y) { y = Attention (q, k, v) }",
    "AveragePool": "(T[N,4,8,8] x) => (T[N,4,7,7] y) { y = AveragePool <kernel_shape = [2, 2]> (x) }",
    "BatchNormalization": "(T[N,4,3,3] x, U[4] s, U[4] b, U[4] m, U[4] v) => (T[N,4,3,3] y)"
    "{ y = BatchNormalization (x, s, b, m, v) }",
    "Cast": "(T[N,4] x) => (float[N,4] y) { y = Cast <to = 1> (x) }",
    "Clip": "(T[N,4] x, U l) => (T[N,4] y) { y = Clip (x, l) }",
    "Concat": "(T[N,2] x, U[N,2] z) => (T[N,4] y) { y = Concat <axis = 1> (x, z) }",
    "Conv": "(T[N,4,8,8] x, U[4,4,3,3] w) => (T[N,4,6,6] y) { y = Conv (x, w) }",
    "ConvTranspose": "(T[N,4,8,8] x, U[4,4,3,3] w) => (T[N,4,10,10] y) { y = ConvTranspose (x, w) }",
    "CumSum": "(T[N,4] x) => (T[N,4] y) <int64 a = {1}> { y = CumSum (x, a) }",
    "DequantizeLinear": "(T[N,4] x) => (float[N,4] y) <float s = {0.5}> { y = DequantizeLinear (x, s) }",
    "Einsum": '(T[N,4] x, U[4,4] w) => (T[N,4] y) { y = Einsum <equation = "ij,jk->ik"> (x, w) }',
    "Expand": "(T[N,1] x) => (T[N,4] y) <int64[2] s = {1, 4}> { y = Expand (x, s) }",
    "Gather": "(T[N,4] x) => (T[N,2] y) <int64[2] i = {0, 2}> { y = Gather <axis = 1> (x, i) }",
    "GatherND": "(T[3,4] x) => (T[2] y) <int64[2,2] i = {0, 2, 1, 1}> { y = GatherND (x, i) }",
    "Gemm": "(T[N,4] x, U[4,4] w) => (T[N,4] y) { y = Gemm (x, w) }",
    "InstanceNormalization": "(T[N,4,3,3] x, U[4] s, U[4] b) => (T[N,4,3,3] y) { y = InstanceNormalization (x, s, b) }",
    "LSTM": "(T[5,N,4] x, U[1,12,4] w, U[1,12,3] r) => (T[5,1,N,3] y) { y = LSTM <hidden_size = 3> (x, w, r) }",
    "LayerNormalization": "(T[N,4] x, U[4] s) => (T[N,4] y) { y = LayerNormalization (x, s) }",
    "MaxPool": "(T[N,4,8,8] x) => (T[N,4,7,7] y) { y = MaxPool <kernel_shape = [2, 2]> (x) }",
    "Pad": "(T[N,4] x, U k) => (T[N,6] y) <int64[4] p = {0, 1, 0, 1}> { y = Pad (x, p, k) }",
    "QuantizeLinear": "(T[N,4] x, U s) => (int8[N,4] y) <int8 z = {0}> { y = QuantizeLinear (x, s, z) }",
    # of a size that the graph works out, as all of ours are: a plan wants to know beforehand how much may come
    "Range": "(T[N,4] x) => (T[M] y) <int64 i = {0}> { s = Shape (x) n = Gather (s, i) e = CastLike (n, x)"
    "a = Sub (e, e) o = Div (e, e) y = Range (a, e, o) }",
    "Reshape": "(T[N,2,4] x) => (T[N,8] y) <int64[2] s = {-1, 8}> { y = Reshape (x, s) }",
    "Resize": "(T[N,4,8,8] x) => (T[N,4,16,16] y) <float[4] s = {1, 1, 2, 2}> { y = Resize (x, , s) }",
    "RMSNormalization": "(T[N,4] x, U[4] s) => (T[N,4] y) { y = RMSNormalization (x, s) }",
    "ScatterElements": "(T[2,4] x, U[2,1] v) => (T[2,4] y) <int64[2,1] i = {0, 2}>"
    "{ y = ScatterElements <axis = 1> (x, i, v) }",
    "Shape": "(T[N,4] x) => (int64[2] y) { y = Shape (x) }",
    "Slice": "(T[N,4] x) => (T[N,2] y) <int64[2] a = {0, 0}, int64[2] e = {9, 2}> { y = Slice (x, a, e) }",
    "Split": "(T[N,4] x) => (T[N,2] y, T[N,2] z) { y, z = Split <axis = 1, num_outputs = 2> (x) }",
    "Squeeze": "(T[N,1,4] x) => (T[N,4] y) <int64[1] a = {1}> { y = Squeeze (x, a) }",
    "Tile": "(T[N,4] x) => (T[N,8] y) <int64[2] r = {1, 2}> { y = Tile (x, r) }",
    "Transpose": "(T[N,2,4] x) => (T[N,4,2] y) { y = Transpose <perm = [0, 2, 1]> (x) }",
    "Unsqueeze": "(T[N,4] x) => (T[N,1,4] y) <int64[1] a = {1}> { y = Unsqueeze (x, a) }",
    "Where": "(bool[N,4] c, T[N,4] x, U[N,4] z) => (T[N,4] y) { y = Where (c, x, z) }",
}
