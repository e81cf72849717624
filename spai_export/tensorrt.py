"""The ONNX graphs of an exported directory → TensorRT plans, built on the GPU that shall run them."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spai_export import lint
from spai_export.builder import BuildOptions, PlanBuilder, Profile
from spai_export.inspector import Layers, Wanted
from spai_export.onnx import ExportError
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.tensorrt_log import sentence
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Graph, Plan

__all__ = ["ENCODER_PLAN", "HEAD_PLAN", "LAYERS", "BuildOptions", "Built", "TensorRTMissingError", "available", "build"]

OLDEST = (10, 12)
ENCODER_PLAN, HEAD_PLAN, LAYERS = "model.plan", "head.plan", "model.layers.json"
HEAD_TYPICAL = 16  # views that the head is tuned for: an image of 896 × 896


class TensorRTMissingError(ExportError):
    """No TensorRT that builds plans, or no GPU to build them on: what to install or where to run, in one sentence."""


@dataclass(frozen=True)
class Built:
    """What a build has made.

    :param notes: sentences for the user: what the engine inspector found, and TensorRT's warnings
    """

    plan: Plan
    notes: Sequence[str]
    seconds: float


def available(device: str = "cuda:0") -> tuple[Any, Gpu]:
    """TensorRT, and the GPU to build on. :raises TensorRTMissingError: either is not there, or too old"""
    trt = _import()
    try:
        return trt, Gpu.find(device)
    except EngineError as error:
        raise TensorRTMissingError(
            f"a plan is built on the GPU that shall run it, so run this command there: {error}"
        ) from error


def build(directory: Path, size: int, features: int, options: BuildOptions) -> Built:
    """Adds model.plan, head.plan and model.layers.json to a directory that has encoder.onnx and head.onnx.

    The last is the engine inspector's report on model.plan, if there is one.

    :param size: side S of a view
    :param features: width D of a view's features
    :raises ExportError: TensorRT or a GPU is missing, a graph is refused, or no kernel fits; nothing was written
    """
    started = time.perf_counter()
    trt, gpu = available(options.device)
    graphs = directory / "encoder.onnx", directory / "head.onnx"
    for graph in graphs:
        lint.check(graph, [trt.__version__])  # of the version that is here: its own refusals name no remedy
    with gpu:
        builder = PlanBuilder(trt, options)
        encoder = _encoder_profile(size, options)
        plans = builder.build(graphs[0], encoder), builder.build(graphs[1], _head_profile(features, options))
        report = builder.inspect(plans[0], encoder)
    made = {ENCODER_PLAN: plans[0], HEAD_PLAN: plans[1], LAYERS: report.encode()}
    _write(directory, {name: content for name, content in made.items() if content})
    plan = Plan(
        encoder=Graph.of(directory / ENCODER_PLAN),
        head=Graph.of(directory / HEAD_PLAN),
        tensorrt=trt.__version__,
        gpu=gpu.name,
        compute_capability=gpu.capability,
        batch_size=options.batch_size,
        version_compatible=options.version_compatible,
        options=_recorded(options, graphs),
    )
    notes = [*Layers.of(report).summary(Wanted.of(graphs[0])), *builder.notes()]
    return Built(plan, notes, time.perf_counter() - started)


def _import() -> Any:
    try:
        import tensorrt as trt  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: a library that it loads by itself
        lean = "tensorrt_lean runs plans but builds none" if find_spec("tensorrt_lean") else _absence(error)
        raise TensorRTMissingError(
            f"{lean}: pip install 'spai-toolkit[trt]' on a machine with an NVIDIA GPU, and run this command there"
        ) from error
    if tuple(map(int, trt.__version__.split(".")[:2])) < OLDEST:
        raise TensorRTMissingError(f"TensorRT {trt.__version__} is too old: pip install 'tensorrt>=10.12'")
    return trt


def _absence(error: Exception) -> str:
    """Not installed, or installed without the libraries that it loads."""
    if getattr(error, "name", None) == "tensorrt":
        return "TensorRT is not installed"
    return f"TensorRT cannot be loaded ({sentence(str(error))})"


def _encoder_profile(size: int, options: BuildOptions) -> Profile:
    one, most = (1, size, size, 3), (options.batch_size, size, size, 3)
    return Profile("views", one, most, most)


def _head_profile(features: int, options: BuildOptions) -> Profile:
    typical = min(HEAD_TYPICAL, options.head_views)
    return Profile("features", (1, 1, features), (1, typical, features), (1, options.head_views, features))


def _recorded(options: BuildOptions, graphs: Sequence[Path]) -> dict[str, Any]:
    """What detector.json tells of a build; a plan belongs to the graphs with these digests."""
    return {
        "tf32": False,
        "workspace_gib": options.workspace_gib,
        "optimization_level": options.optimization_level,
        "head_views": options.head_views,
        "onnx_sha256": {path.name: Graph.of(path).sha256 for path in graphs},
    }


def _write(directory: Path, contents: dict[str, bytes]) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".plan-", dir=directory) as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            for name in contents:
                (Path(folder) / name).replace(directory / name)
    except OSError as error:
        raise ExportError(f"cannot write {directory}: {error.strerror}") from error
