"""What a graph computes on the calibration views, at the tensors that are to be in 8 bits."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from spai_runtime.cores import cores
from spai_runtime.engines.onnx_session import CPU, import_runtime

BATCH = 2  # views that run together, as everywhere on a CPU
ROWS = 512  # of a tensor, drawn from those of all views


@dataclass(frozen=True)
class Recorded:
    """The values of a tensor (…, D) on the calibration views.

    :param low, high: the least and the largest value of each channel on all views, (D,)
    :param rows: some of its rows, (at most ROWS, D), drawn with a fixed seed
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    rows: NDArray[np.float32]


def record(model: onnx.ModelProto, tensors: Iterable[str], views: NDArray[np.uint8]) -> Mapping[str, Recorded]:
    """Runs the graph once on all views.

    :param tensors: the names of tensors (…, D) of the graph
    :param views: (N, H, W, 3)
    """
    names, random = list(dict.fromkeys(tensors)), np.random.default_rng(0)
    share = -(-ROWS // -(-len(views) // BATCH))
    found: dict[str, list[Recorded]] = {name: [] for name in names}
    with session(with_outputs(model, names)) as opened:
        for start in range(0, len(views), BATCH):
            values = opened.run(names, {model.graph.input[0].name: views[start : start + BATCH]})
            for name, value in zip(names, values, strict=True):
                found[name].append(_recorded(value, share, random))
    return {name: _joined(parts) for name, parts in found.items()}


def _recorded(value: NDArray[np.float32], share: int, random: np.random.Generator) -> Recorded:
    rows = value.reshape(-1, value.shape[-1])
    chosen = random.permutation(len(rows))[:share]
    return Recorded(rows.min(axis=0), rows.max(axis=0), rows[chosen])


def _joined(parts: list[Recorded]) -> Recorded:
    low, high = np.min([part.low for part in parts], axis=0), np.max([part.high for part in parts], axis=0)
    return Recorded(low, high, np.concatenate([part.rows for part in parts])[:ROWS])


def with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy of the graph that gives these float32 tensors too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in tensors:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


@contextmanager
def session(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph in ONNX Runtime on the CPU."""
    runtime = import_runtime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = cores()
    with tempfile.TemporaryDirectory(prefix="spai-int8-") as folder:  # a model of more than 2 GB is no one message
        path = Path(folder, "encoder.onnx")
        onnx.save(model, str(path))
        del model  # as large as the session, which reads the file
        yield runtime.InferenceSession(str(path), settings, providers=[CPU])
