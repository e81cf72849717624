"""Graphs and plans as engines, by the table of engines; and the views of an image that lies on a GPU."""

from pathlib import Path
from typing import Any

import msgspec

from spai_runtime.engines import BACKENDS
from spai_runtime.engines.base import Contract, Crop, DeviceImage, Engine
from spai_runtime.engines.tensorrt_target import Target
from spai_runtime.manifest import Artifact, Graph
from spai_runtime.views import Layout

NO_GRAPH = Graph("none", "0" * 64)


def load_graph(path: Path, contract: Contract, device: str) -> Engine:
    """An ONNX graph in ONNX Runtime."""
    return _load(path, contract, device, Artifact("onnx", "fp32", NO_GRAPH, NO_GRAPH))


def load_plan(path: Path, contract: Contract, device: str, target: Target) -> Engine:
    """A plan in TensorRT."""
    fields: dict[str, Any] = msgspec.to_builtins(target)
    return _load(path, contract, device, Artifact("tensorrt", "fp32", NO_GRAPH, NO_GRAPH, target=fields))


def _load(path: Path, contract: Contract, device: str, artifact: Artifact) -> Engine:
    kind = "cpu" if device == "cpu" else "cuda"
    (row,) = (row for row in BACKENDS if row.device == kind and artifact.kind in row.kinds)
    return row.open(path, contract, device, artifact)


def crops_of(image: DeviceImage, layout: Layout) -> list[Crop]:
    """All views of an image."""
    return [
        Crop(image, int(top), int(left), bool(flipped), layout.padding)
        for (top, left), flipped in zip(layout.origins, layout.flips, strict=True)
    ]
