"""int8 and fp8 for TensorRT: ModelOpt puts QuantizeLinear and DequantizeLinear around the encoder's matrix products.

It starts from the encoder in fp16 (`spai_export.precision`) with attention written out: what is not quantised stays as
it is there. The products of the blocks and of the projectors are quantised; spectral filter, patch embedding,
statistics and spectral context are not.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from spai_export.choices import Precision
from spai_export.modelopt import QuantisationError, require_modelopt, run_modelopt
from spai_export.onnx import check_graph
from spai_runtime.files.atomic import atomic_write

PRODUCTS = ("MatMul", "Gemm")
QUANTISABLE = (*PRODUCTS, "Conv")

# Largest value of a weight in steps of its scale. ModelOpt's of fp8 is its int8 scale times 448/127: the 448 of fp8
# then lie 12 times beyond the largest value, which costs a float nothing.
STEPS = {Precision.INT8: 127.0, Precision.FP8: 127.0**2 / 448}


@dataclass(frozen=True)
class Quantised:
    """What ModelOpt has done.

    :param products: the names of the nodes whose factors are quantised
    :param left: the names of those between patch embedding and statistics whose factors are not: attention in int8, and
        what ModelOpt finds not worth it (a dimension below 16)
    """

    products: tuple[str, ...]
    left: tuple[str, ...]


def excluded_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that ModelOpt could quantise and must not: all not between patch embedding and statistics.

    The exporter's names change with torch, so the rule looks at the graph: what a convolution depends on is the
    spectral filter, and what depends on a reduction is statistics and spectral context (LayerNorm is one node and
    reduces nothing here).
    """
    nodes = model.graph.node
    before, behind = _ancestors(nodes), _descendants(nodes)
    return [node.name for i, node in enumerate(nodes) if node.op_type in QUANTISABLE and (i in before or i in behind)]


def _ancestors(nodes: Sequence[onnx.NodeProto]) -> set[int]:
    """The indices of the convolutions and of all that they depend on; nodes are in topological order."""
    wanted: set[str] = set()
    found = set()
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.op_type == "Conv" or wanted.intersection(node.output):
            found.add(index)
            wanted.update(node.input)
    return found


def _descendants(nodes: Sequence[onnx.NodeProto]) -> set[int]:
    """The indices of the reductions and of all that depends on them."""
    reached: set[str] = set()
    found = set()
    for index, node in enumerate(nodes):
        if node.op_type.startswith("Reduce") or reached.intersection(node.input):
            found.add(index)
            reached.update(node.output)
    return found


def quantize(path: Path, precision: Precision, views: NDArray[np.uint8], output: Path) -> Quantised:
    """Writes the quantised encoder: the same input and output, Q/DQ of zero point 0, scales of the type they scale.

    A range is set by the largest value on `views`; the range of least divergence ("entropy") takes several times longer
    and is not reliably nearer to fp32. int8 leaves attention's products in fp16: a softmax over 200 tokens has values
    around 1/200, and one step of int8 is 1/127.

    :param path: the encoder in fp16, opset 20, with attention written out
    :param precision: INT8 or FP8
    :param views: (N, H, W, 3), as `calibration_views` gives them
    :raises QuantisationError: ModelOpt is not installed, or fails
    """
    require_modelopt()
    source = onnx.load(str(path))
    names = _number(source)
    with tempfile.TemporaryDirectory(prefix="spai-quantize-") as folder:
        model = _annotated(source, precision, views, Path(folder))
        _fix_scales(model, source, STEPS[precision])
        done = _quantised(model, source, names)
        for node in model.graph.node:
            node.name = names.get(node.name, node.name)
        onnx.save(model, str(Path(folder, output.name)))
        check_graph(Path(folder, output.name))
        with atomic_write(output) as part:
            shutil.move(Path(folder, output.name), part)
    return done


def _annotated(
    source: onnx.ModelProto, precision: Precision, views: NDArray[np.uint8], folder: Path
) -> onnx.ModelProto:
    """Gives the graph with ModelOpt's Q/DQ."""
    onnx.save(source, str(folder / "encoder.onnx"))
    np.save(folder / "views.npy", views)
    arguments = {
        "quantize_mode": precision,
        "calibration_method": "max",
        "op_types_to_quantize": PRODUCTS,
        "nodes_to_exclude": excluded_nodes(source),
        "disable_mha_qdq": precision is Precision.INT8,
    }
    run_modelopt(folder, arguments)
    return onnx.load(str(folder / "quantised.onnx"))


def _number(model: onnx.ModelProto) -> dict[str, str]:
    """Puts a number of fixed width before every name: ModelOpt matches a name with all that begin with it.

    :returns: the new names → the old
    """
    names = {f"{index:06d}_{node.name}": node.name for index, node in enumerate(model.graph.node)}
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return names


def _quantised(model: onnx.ModelProto, source: onnx.ModelProto, names: Mapping[str, str]) -> Quantised:
    """:raises QuantisationError: ModelOpt quantised nothing, or something that it must not"""
    dequantised = {value for node in model.graph.node if node.op_type == "DequantizeLinear" for value in node.output}
    found = {node.name for node in model.graph.node if dequantised.intersection(node.input)} & names.keys()
    excluded = set(excluded_nodes(source))
    wanted = [node.name for node in source.graph.node if node.op_type in PRODUCTS and node.name not in excluded]
    if not found:
        raise QuantisationError("ModelOpt found nothing to quantise in the encoder")
    if strangers := sorted(found - set(wanted)):
        raise QuantisationError(f"ModelOpt quantised {names[strangers[0]]}, which it was told not to")
    products, left = ([names[name] for name in wanted if (name in found) is yes] for yes in (True, False))
    return Quantised(tuple(products), tuple(left))


def _fix_scales(model: onnx.ModelProto, source: onnx.ModelProto, steps: float) -> None:
    """Gives scales the type of what they scale, and computes those of weights without ONNX Runtime's floor.

    ModelOpt gives every softmax a float32 scale, which Q/DQ of a half tensor may not have. ONNX Runtime takes 1 for
    a scale below the smallest normal number, which in fp16 is that of a channel of weights below 0.008: all of these
    weights would become 0.
    """
    types = _types(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        scale, weight = constants[node.input[1]], constants.get(node.input[0])
        values = numpy_helper.to_array(scale)
        if weight is not None:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
            values = _weight_scale(numpy_helper.to_array(weight), axis, steps)
        element = types[node.input[0]] if weight is None else weight.data_type
        values = values.astype(onnx.helper.tensor_dtype_to_np_dtype(element))
        scale.CopyFrom(numpy_helper.from_array(values, scale.name))


def _weight_scale(weight: NDArray[Any], axis: int | None, steps: float) -> NDArray[np.float32]:
    """The scale of each channel: its largest value / steps, or 1 where the channel is 0 throughout."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.abs(weight.astype(np.float32)).max(axis=others)
    return np.where(largest > 0, np.maximum(largest / np.float32(steps), 2.0**-24), 1).astype(np.float32)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every computed tensor, by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
