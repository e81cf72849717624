"""Torch against the exported graphs, as the runtime loads them: does a detector compute what its checkpoint does?

Graphs in half precision are compared in float32, theirs and torch's: the rounded weights and the structure are what can
be wrong with them, to the same tolerances. What rounding the products does to scores is the gate's question.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from spai_export.float32 import to_float32
from spai_export.onnx import ExportError
from spai_export.precision import Half
from spai_runtime.engines import Contract, Engine, load_engine

BATCH_SIZES = (1, 2, 3, 5, 8)  # 1 is the size that exporters specialise by mistake
IMAGE_VIEWS = (1, 4, 5, 13)


@dataclass(frozen=True)
class Differences:
    """Largest absolute differences."""

    features: float
    logit: float
    attention: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.1e}" for name, value in asdict(self).items())


TOLERANCE = Differences(features=1e-4, logit=1e-4, attention=1e-5)  # fp32; the parity that DESIGN asks for
HALF_TOLERANCE = replace(TOLERANCE, features=1e-3)  # a graph rounds scalar constants to half, CLIP's 1.702; torch none


def tolerance(encoder: nn.Module) -> Differences:
    """What `verify` holds an encoder to."""
    return HALF_TOLERANCE if _is_half(encoder) else TOLERANCE


def verify(encoder: nn.Module, head: nn.Module, directory: Path, features: int) -> Differences:
    """Runs both on the same views, in batches of several sizes.

    :param encoder, head: in eval mode; what encoder.onnx and head.onnx of the directory were exported from
    :param features: width D of a view's features
    :returns: the largest differences found
    :raises ExportError: one of them is above `tolerance`
    """
    limits = tolerance(encoder)
    encoder, size, worst = _single(encoder), _side(encoder), []
    with _engines(encoder, directory, features) as (encode, judge), torch.inference_mode():
        for count in BATCH_SIZES:
            views = sample_views(count, size)
            worst.append(_largest(encode.run(views)[0], encoder(torch.from_numpy(views)).numpy()))
        described = encoder(torch.from_numpy(sample_views(max(IMAGE_VIEWS), size)))
        heads = [_head(head, judge, described[:count]) for count in IMAGE_VIEWS]
    found = Differences(max(worst), *(max(values) for values in zip(*heads, strict=True)))
    for name, value in asdict(found).items():
        if not value <= asdict(limits)[name]:  # also where it is NaN
            raise ExportError(f"the exported graphs differ from the checkpoint: {found}; tolerated: {limits}")
    return found


def sample_views(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size, 3) uint8 from a fixed seed: ramps, noise, and noise on ramps, in turn."""
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(size), np.arange(size))[None, :, :, None] * 128 / size
    noise = random.uniform(0, 255, (count, size, size, 3))
    share = (np.arange(count) % 3 / 2)[:, None, None, None]
    return (noise * share + ramp * (1 - share)).clip(0, 255).astype(np.uint8)


def _single(encoder: nn.Module) -> nn.Module:
    """A copy that computes in float32 with the weights of its precision."""
    copy = deepcopy(encoder).float()
    for module in copy.modules():
        if isinstance(module, Half):
            module.dtype = module.gives = torch.float32
    return copy


@contextmanager
def _engines(encoder: nn.Module, directory: Path, features: int) -> Iterator[tuple[Engine, Engine]]:
    """The two graphs on the CPU, in float32."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as loaded:
        graph = directory / "encoder.onnx"
        if _is_half(encoder):
            onnx.save(to_float32(onnx.load(str(graph))), str(Path(folder) / graph.name))
            graph = Path(folder) / graph.name
        encode = load_engine(graph, Contract.encoder(_side(encoder), features), "cpu")
        loaded.callback(encode.close)
        judge = load_engine(directory / "head.onnx", Contract.head(features), "cpu")
        loaded.callback(judge.close)
        yield encode, judge


def _side(encoder: nn.Module) -> int:
    """S, as its spectral filter has it."""
    return encoder.filter.size  # type: ignore[return-value]


def _is_half(encoder: nn.Module) -> bool:
    return any(isinstance(module, Half) for module in encoder.modules())


def _head(head: nn.Module, engine: Engine, features: torch.Tensor) -> tuple[float, float]:
    """Differences of logit and attention, for a batch of two images."""
    images = torch.stack((features, features.flip(0)))
    results = zip(engine.run(images.numpy()), head(images), strict=True)
    logit, attention = (_largest(found, expected.numpy()) for found, expected in results)
    return logit, attention


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"the exported graph gives {found.shape} where the checkpoint gives {expected.shape}")
    return float(np.abs(found - expected).max())
