"""Stands in for modelopt.onnx.quantization, and makes the mistakes that are mended behind ModelOpt.

It takes names for prefixes, gives softmax a scale in float32 and every weight one scale of 1, prints, and leaves files.
The environment variable FAKE_MODELOPT makes it fail in one of several ways.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def quantize(
    onnx_path: str, calibration_data: dict[str, NDArray[np.uint8]], nodes_to_exclude: list[str], **options: Any
) -> None:
    print("noise")  # noqa: T201
    print("noise", file=sys.stderr)  # noqa: T201
    tempfile.mkstemp()
    Path("left_behind").touch()
    Path(onnx_path + ".bak").touch()
    assert calibration_data["views"].dtype == np.uint8
    assert options["high_precision_dtype"] == "fp32"
    products = tuple(options["op_types_to_quantize"])
    match os.environ.get("FAKE_MODELOPT"):
        case "raises":
            raise ValueError("no such thing")
        case "lacks":
            import onnx_graphsurgery  # noqa: F401, PLC0415
        case "killed":
            os.kill(os.getpid(), 9)
        case "writes nothing":
            return
        case "finds nothing":
            products = ()
        case "excludes nothing":
            nodes_to_exclude = []
    model = onnx.load(onnx_path)
    annotate(model.graph, products, nodes_to_exclude)
    onnx.save(model, options["output_path"])


def annotate(graph: onnx.GraphProto, products: tuple[str, ...], excluded: list[str]) -> None:
    softmax = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    constants = {tensor.name for tensor in graph.initializer}
    nodes, done = [], set()
    for node in graph.node:
        if node.op_type in products and not any(map(node.name.startswith, excluded)):
            for index, value in enumerate(node.input[:2]):
                if value not in done:
                    scale = 1 if value in constants else 1 / 127 if value in softmax else 0.05
                    scaled = np.array(scale, np.float32 if value in softmax else np.float16)
                    nodes += pair(graph, value, scaled)
                    done.add(value)
                node.input[index] = value + "_dequantised"
        nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(nodes)


def pair(graph: onnx.GraphProto, value: str, scale: NDArray[Any]) -> list[onnx.NodeProto]:
    ends = [value + "_scale", value + "_zero"]
    graph.initializer.append(numpy_helper.from_array(scale, ends[0]))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), ends[1]))
    quantised, dequantised = value + "_quantised", value + "_dequantised"
    return [
        helper.make_node("QuantizeLinear", [value, *ends], [quantised], quantised),
        helper.make_node("DequantizeLinear", [quantised, *ends], [dequantised], dequantised),
    ]
