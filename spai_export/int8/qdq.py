"""Calls ONNX Runtime's quantiser with the products to quantise and the ranges to use."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from spai_export.int8.products import Product
from spai_export.int8.rounding import Range
from spai_runtime.engines.onnx_session import import_runtime

OPTIONS: Mapping[str, Any] = {
    "WeightSymmetric": True,
    "ActivationSymmetric": False,
    "OpTypesToExcludeOutputQuantization": ["MatMul"],  # a product is fp32, as what reads it is
}


def with_qdq(model: onnx.ModelProto, products: Sequence[Product], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """The graph with QuantizeLinear and DequantizeLinear (unsigned, one scale a tensor) before these products, and
    their weights in int8 behind a DequantizeLinear (one scale a column).

    :param ranges: the ranges of the products' tensors
    """
    import_runtime()
    from onnxruntime import quantization  # noqa: PLC0415

    method = quantization.CalibrationMethod.MinMax
    names = {product.factor for product in products}
    seen = {name: (np.array(ranges[name].low, np.float32), np.array(ranges[name].high, np.float32)) for name in names}
    quantizer = quantization.QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),  # which finds the types that it asks for
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=quantization.TensorsData(method, seen),
        nodes_to_quantize=[product.node for product in products],
        nodes_to_exclude=[],
        op_types_to_quantize=["MatMul"],
        extra_options=dict(OPTIONS),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised
