"""The layers that can be in 8 bits: each is rounded alone, and the features are compared with those of fp32.

Nothing before the layer is rounded, so its inputs in fp32 tell what rounding changes in its output. This change is
added to the output, so that one loaded graph serves all layers. The views are few, so that this takes some hundred runs
of a view whatever the model is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from spai_export.int8.products import Product, constant
from spai_export.int8.recording import session, with_outputs
from spai_export.int8.rounding import Floats, Range, product_error

RUNS = 192  # of a view, in all: two minutes for ViT-B/16 on two cores
MOST_VIEWS = 8
NOTABLE = 0.01  # of the features


def errors_alone(
    model: onnx.ModelProto, products: Sequence[Product], ranges: Mapping[str, Range], views: NDArray[np.uint8]
) -> Sequence[float]:
    """The error of each product when it alone is in 8 bits: |Δfeatures| / |features| (Euclidean, all views together).

    :param ranges: the range of each tensor
    :param views: (N, H, W, 3); the first ones are taken
    """
    chosen = views[: min(MOST_VIEWS, max(1, RUNS // max(1, len(products))))]
    names = list(dict.fromkeys(product.factor for product in products))
    with session(_with_additions(with_outputs(model, names), products)) as opened:
        feed = {model.graph.input[0].name: chosen, **{_addition(one): np.zeros(1, np.float32) for one in products}}
        features, *values = opened.run([model.graph.output[0].name, *names], feed)
        factors = dict(zip(names, values, strict=True))
        found = []
        for product in products:
            added = product_error(factors[product.factor], constant(model, product.weight), ranges[product.factor])
            (changed,) = opened.run([model.graph.output[0].name], {**feed, _addition(product): added})
            found.append(_relative(changed, features))
    return found


def worst_first(errors: Sequence[float]) -> list[int]:
    """The indices of layers, from the largest error to the smallest."""
    return sorted(range(len(errors)), key=lambda index: -errors[index])


def spoilers(errors: Sequence[float]) -> int:
    """How many of the worst layers stay in fp32 whatever the scores are, since few images may not show their error.

    Each of them changes the features by more than NOTABLE, and by more than all better layers together, whose errors
    add up as independent ones do. They are at most a quarter of the layers.
    """
    squares = np.sort(np.square(errors))[::-1]
    count = 0
    while count < len(squares) // 4 and squares[count] > max(NOTABLE**2, squares[count + 1 :].sum()):
        count += 1
    return count


def _with_additions(model: onnx.ModelProto, products: Sequence[Product]) -> onnx.ModelProto:
    """The same graph, changed in place so that a given tensor is added to each product."""
    added = {product.node: _addition(product) for product in products}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.name in added:
            name, output = added[node.name], node.output[0]
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            node.output[0] = f"{output}_before"
            nodes.append(onnx.helper.make_node("Add", [node.output[0], name], [output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _addition(product: Product) -> str:
    return f"{product.output}_added"


def _relative(changed: Floats, features: Floats) -> float:
    return float(np.linalg.norm(changed - features) / np.linalg.norm(features))
