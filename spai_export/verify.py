"""Compares torch with the exported graphs as the runtime loads them: do they compute what the checkpoint does?

Graphs in half precision are compared in float32, both theirs and torch's, with the same tolerances: the rounded weights
and the structure are what can be wrong in them. The accuracy check finds what the rounding of products does to scores.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spai_export.float32 import to_float32
from spai_export.onnx import ExportError
from spai_export.precision import Half
from spai_runtime.engines.base import Contract
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.manifest import Manifest
from spai_runtime.views import ViewPolicy

AGAINST = "torch, fp32, cpu"  # what graphs, and scores, are compared with
BATCH_SIZES = (1, 2, 3, 5, 8)  # 1 is the size that exporters specialise by mistake
IMAGE_VIEWS = (1, 4, 5, 13)
WHOLE_SIDES = ((64, 96), (97, 65), (150, 33))  # heights and widths of views where every image has its own


@dataclass(frozen=True)
class Differences:
    """The largest differences. Those of features are relative to the largest feature where that is above 1, since it
    may be 100 in wide ones; that of attention is None if the head gives none.
    """

    features: float
    logit: float
    attention: float | None = None

    def numbers(self) -> dict[str, float]:
        """The differences by the name of the output."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.1e}" for name, value in self.numbers().items())


TOLERANCE = Differences(features=1e-4, logit=1e-4, attention=1e-5)  # fp32; the parity that DESIGN asks for
HALF_TOLERANCE = replace(TOLERANCE, features=1e-3)  # a graph rounds scalar constants to half, CLIP's 1.702; torch none


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    :param differences: those of the graphs from torch, both computing in float32
    :param tolerance: how large they may be
    """

    differences: Differences
    tolerance: Differences

    def __str__(self) -> str:
        return f"largest difference from torch: {self.differences} (tolerated: {self.tolerance})"

    def record(self) -> dict[str, Any]:
        """What detector.json says of it."""
        return {
            "against": AGAINST,
            "views_per_batch": list(BATCH_SIZES),
            "largest_difference": {name: float(f"{value:.2e}") for name, value in self.differences.numbers().items()},
            "tolerance": self.tolerance.numbers(),
        }


def verify(manifest: Manifest, encoder: nn.Module, head: nn.Module, graphs: tuple[Path, Path]) -> Verified:
    """Runs encoder, head and their graphs on the same views, in batches of several sizes.

    :param manifest: says the shape of a view, the width of its features, and whether there is attention
    :param encoder, head: the modules, in eval mode
    :param graphs: the graphs that they were exported to
    :raises ExportError: a difference is above what is tolerated
    """
    half = _is_half(encoder)
    encoder = _single(encoder)
    with torch.inference_mode():
        features = _encoder_difference(manifest, encoder, graphs[0], half=half)
        views = sample_views(max(IMAGE_VIEWS), *_shapes(manifest.views)[0])
        heads = _head_differences(manifest, head, graphs[1], encoder(torch.from_numpy(views)))
    found, limits = Differences(features, *heads), _tolerance(half=half, attention=manifest.attention)
    for name, value in found.numbers().items():
        if not value <= limits.numbers()[name]:  # also where it is NaN
            raise ExportError(f"the exported graphs differ from the checkpoint: {found}; tolerated: {limits}")
    return Verified(found, limits)


def sample_views(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draws views (count, height, width, 3) uint8 from a fixed seed: ramps, noise, and noise on ramps, in turn."""
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(height), np.arange(width))[None, :, :, None] * 128 / max(height, width)
    noise = random.uniform(0, 255, (count, height, width, 3))
    share = (np.arange(count) % 3 / 2)[:, None, None, None]
    return (noise * share + ramp * (1 - share)).clip(0, 255).astype(np.uint8)


def _tolerance(*, half: bool, attention: bool) -> Differences:
    limits = HALF_TOLERANCE if half else TOLERANCE
    return limits if attention else replace(limits, attention=None)


def _shapes(policy: ViewPolicy) -> Sequence[tuple[int, int]]:
    """The heights and widths of views to try."""
    height, width = policy.shape
    if height is not None and width is not None:
        return [(height, width)]
    return [(height or tall, width or wide) for tall, wide in WHOLE_SIDES]


def _is_half(encoder: nn.Module) -> bool:
    return any(isinstance(module, Half) for module in encoder.modules())


def _single(encoder: nn.Module) -> nn.Module:
    """A copy of a module that computes in float32 with the rounded weights of its precision."""
    copy = deepcopy(encoder).float()
    for module in copy.modules():
        if isinstance(module, Half):
            module.dtype = module.gives = torch.float32
    return copy


def _encoder_difference(manifest: Manifest, encoder: nn.Module, graph: Path, *, half: bool) -> float:
    """:param half: whether the graph is to be run in float32 instead"""
    contract = Contract.encoder(manifest.views.shape, manifest.features, manifest.views.window)
    batches = [sample_views(count, *shape) for shape in _shapes(manifest.views) for count in BATCH_SIZES]
    with _in_float32(graph) if half else nullcontext(graph) as path, closing(OnnxEngine(path, contract)) as engine:
        pairs = [(engine.run(views)[0], encoder(torch.from_numpy(views))) for views in batches]
    return float(np.max([_difference(*pair) / max(1.0, float(pair[1].abs().max())) for pair in pairs]))


@contextmanager
def _in_float32(graph: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / graph.name
        onnx.save(to_float32(onnx.load(str(graph))), str(single))
        yield single


def _head_differences(manifest: Manifest, head: nn.Module, graph: Path, features: Tensor) -> list[float]:
    """The differences of the logit, and of the attention if there is one, for batches of two images.

    :param features: (V, D)
    """
    contract = Contract.head(manifest.features, attention=manifest.attention)
    found = []
    with closing(OnnxEngine(graph, contract)) as engine:
        for count in IMAGE_VIEWS:
            images = torch.stack((features[:count], features[:count].flip(0)))
            outputs = head(images)
            expected = outputs if isinstance(outputs, tuple) else (outputs,)
            found.append([_difference(*pair) for pair in zip(engine.run(images.numpy()), expected, strict=True)])
    return [float(worst) for worst in np.max(found, axis=0)]


def _difference(found: NDArray[np.float32], expected: Tensor) -> float:
    wanted = expected.numpy()
    if found.shape != wanted.shape:
        raise ExportError(f"the exported graph gives {found.shape} where the checkpoint gives {wanted.shape}")
    return float(np.abs(found - wanted).max())
