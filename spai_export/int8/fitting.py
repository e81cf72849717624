"""int8 for CPUs: which layers of an encoder can be in int8, and the graph in which they are.

Three quantisers were measured, each on a graph in fp32. The speed is that of ViT-B/16 with random weights, as a
multiple of fp32 in the same engine (two busy cores with AMX, so that a fifth more or less means nothing). The largest
|Δscore| is that of the demo detector on 180 simulated images in OpenVINO, with ranges from 48 to 64 views.

| | OpenVINO | ONNX Runtime | largest Δscore |
|---|---|---|---|
| ONNX Runtime 1.31, as `qdq` calls it | 4.5 | 2.9 | 0.009; 0.008 with `migration` |
| NNCF 3.4, its ONNX back end for transformers: SmoothQuant, bias correction | 4.9 | 2.6 | 0.021 |
| ModelOpt 0.47, signed activations | 5.1 | 3.0 | 0.018 |

So ONNX Runtime's is used, which `export` installs anyway: NNCF would be one more dependency, and ModelOpt six
gigabytes. With attention's products in int8 too, ViT-B/16 was no faster in either engine (4.0 and 2.9); they stay in
fp32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from spai_export.int8.migration import migrate
from spai_export.int8.products import Product, products
from spai_export.int8.qdq import with_qdq
from spai_export.int8.recording import record
from spai_export.int8.rounding import Range
from spai_export.int8.sensitivity import errors_alone, spoilers, worst_first
from spai_export.modelopt import QuantisationError
from spai_export.onnx import check_graph
from spai_runtime.accuracy import LIMIT
from spai_runtime.manifest import Accuracy

# That ranges are found on, of as many images: with half as many, scores of other images were further off; with twice
# as many, no nearer (the demo detector).
VIEWS = 128
WANTED = LIMIT / 4  # of |Δscore| on the images of the check, since others are further off than these
SHOWN = 8  # layers in the table that the user is told


@dataclass(frozen=True)
class Examined:
    """An encoder in fp32, and what is known of its layers.

    :param errors: the error of each product, see `errors_alone`
    :param migrated: the α of each tensor whose channels were rescaled
    """

    model: onnx.ModelProto
    products: Sequence[Product]
    ranges: Mapping[str, Range]
    errors: Sequence[float]
    migrated: Mapping[str, float]

    def write(self, path: Path, left: int) -> None:
        """Writes the graph in int8, without so many of the worst layers."""
        out = set(worst_first(self.errors)[:left])
        chosen = [product for index, product in enumerate(self.products) if index not in out]
        onnx.save(with_qdq(self.model, chosen, self.ranges), str(path))
        check_graph(path)


@dataclass(frozen=True)
class Fitted:
    """The encoder as it was quantised.

    :param left: how many of the worst layers are still fp32
    """

    examined: Examined
    left: int
    accuracy: Accuracy

    @property
    def record(self) -> Mapping[str, Any]:
        """What detector.json says of it; layers go from the worst to the best, so that those left in fp32 are first."""
        found = self.examined
        return {
            "products": len(found.products) - self.left,
            "left_in_fp32": self.left,
            "migrated": len(found.migrated),
            "layers": [{"layer": name, "error_alone": error, "int8": kept} for name, error, kept in self._table()],
        }

    @property
    def sentences(self) -> Sequence[str]:
        """The table for the user."""
        table, count = self._table(), len(self.examined.products)
        shown = table[: max(SHOWN, self.left)]
        return [
            f"{count - self.left} of {count} linear layers are in int8; alone, these change the features most:",
            *(f"  {error:.1e}  {name}: {'int8' if kept else 'left in fp32'}" for name, error, kept in shown),
        ]

    def _table(self) -> list[tuple[str, float, bool]]:
        """The rows of the table: a layer, its error alone, and whether it is in int8."""
        order, found = worst_first(self.examined.errors), self.examined
        return [
            (found.products[index].layer, float(f"{found.errors[index]:.2e}"), place >= self.left)
            for place, index in enumerate(order)
        ]


def examine(model: onnx.ModelProto, views: NDArray[np.uint8]) -> Examined:
    """Finds ranges and errors of an encoder's layers; channels are rescaled where that makes an error smaller.

    :param model: the encoder in fp32
    :param views: the views to calibrate on, (N, H, W, 3)
    :raises QuantisationError: the encoder has no layer to quantise
    """
    found = products(model)
    if not found:
        raise QuantisationError("the encoder has no linear layer behind its patch embedding to quantise: choose fp32")
    migrated = migrate(model, found, record(model, [product.factor for product in found], views))
    ranges = {name: Range.of(seen.low, seen.high) for name, seen in migrated.recorded.items()}
    errors = errors_alone(migrated.model, migrated.products, ranges, views)
    return Examined(migrated.model, migrated.products, ranges, errors, migrated.strengths)


def fit(graph: Path, views: NDArray[np.uint8], compare: Callable[[], Accuracy]) -> Fitted:
    """Quantises an encoder in its place, and leaves as few layers in fp32 as the accuracy check lets it.

    :param graph: the encoder in fp32
    :param views: see `examine`
    :param compare: checks the accuracy of the graph that is then in its place
    :returns: the fitted encoder, which may not have passed the check
    """
    examined, tried = examine(onnx.load(str(graph)), views), []
    for left in _attempts(examined.errors):
        examined.write(graph, left)
        tried.append(Fitted(examined, left, compare()))
        if tried[-1].accuracy.score_difference.largest <= WANTED:
            return tried[-1]
    best = min(tried, key=lambda one: one.accuracy.score_difference.largest)
    examined.write(graph, best.left)
    return best


def _attempts(errors: Sequence[float]) -> list[int]:
    """How many layers each attempt leaves out: first the spoilers, then up to a third of all layers in addition."""
    first = spoilers(errors)
    return sorted({first, *(first + len(errors) // part for part in (8, 4, 3))})
