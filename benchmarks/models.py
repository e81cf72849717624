"""Random-weight models of the benchmarks, exported once and kept in the temporary directory.

The folder's name is a digest of the code that shapes the graphs and of the tools that write them, so that a change of
either exports anew.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from spai_export import folding
from spai_export import onnx as exporter
from spai_export import precision as casting
from spai_export.choices import Precision
from spai_runtime.manifest import FILE_NAME, ONNX, Artifact, Graph, Manifest
from spai_train.checkpoint import Card
from spai_train.detectors import class_token, clipdet, community_forensics, corvi2023, dda, find, linear, rine, spai
from spai_train.detectors.describe import describe
from spai_train.detectors.spai import model as network
from spai_train.detectors.spai import spectral
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.detectors.spec import DetectorModel
from spai_train.models import half, vit

CONFIGS = {
    "vitb": SPAIConfig(),  # the published model: ViT-B/16, 66 GMAC a tile
    "medium": SPAIConfig(width=384, depth=6, heads=6, blocks=tuple(range(6)), projection=512),  # 8 GMAC a tile
    "tiny": SPAIConfig(width=48, depth=2, heads=3, blocks=(0, 1), projection=64),  # tries a benchmark out in seconds
}

# The code that shapes a graph.
SOURCES = (
    spai,
    network,
    spectral,
    class_token,
    clipdet,
    community_forensics,
    corvi2023,
    dda,
    linear,
    rine,
    half,
    vit,
    casting,
    folding,
    exporter,
)


def random_model(name: str) -> SPAI:
    """The same weights on every call, in eval mode."""
    torch.manual_seed(0)
    return SPAI(CONFIGS[name]).eval()


def exported(name: str, precision: Precision = Precision.FP32, *, fused: bool = False) -> Path:
    """The directory of a model of CONFIGS, as spai-export lays it out.

    :param precision: that PyTorch casts to: fp32, fp16 or bf16
    :param fused: whether attention is one node (opset 23) instead of its products
    """
    return _kept(name, lambda: random_model(name), precision, fused=fused)


def exported_detector(name: str, precision: Precision = Precision.FP32, **config: int) -> Path:
    """The directory of a detector of the table with random weights, at its published size but for what `config` says.

    :param precision: see `exported`
    """

    def build() -> DetectorModel:
        torch.manual_seed(0)
        spec = find(name)
        return spec.build(spec.config(**config)).eval()

    size = (f"{key}{value}" for key, value in config.items())
    return _kept("-".join(("detector", name, *size)), build, precision, fused=False)


def _kept(name: str, build: Callable[[], DetectorModel], precision: Precision, *, fused: bool) -> Path:
    kind = "-".join(filter(None, (name, precision, fused and "fused", _digest())))
    directory = Path(tempfile.gettempdir()) / "spai-benchmarks" / kind
    if not (directory / FILE_NAME).is_file():
        directory.mkdir(parents=True, exist_ok=True)
        model = build()
        spec = find(model.detector)
        encoder = casting.cast(spec, model.encoder, precision, fused=fused)
        if precision is Precision.FP32:
            folding.fold(encoder)
        opset = exporter.FUSED_OPSET if fused else exporter.OPSET
        exporter.export_encoder(encoder, spec.views(model.config).shape, directory / "encoder.onnx", opset)
        exporter.export_head(model.head, model.config.features, directory / "head.onnx", attention=spec.attention)
        (directory / FILE_NAME).write_bytes(_manifest(name, model, precision, directory).dump())
    return directory


def manifest(name: str, precision: Precision, directory: Path) -> Manifest:
    """Of the graphs of a model of CONFIGS that lie there."""
    return _manifest(name, random_model(name), precision, directory)


def _manifest(name: str, model: DetectorModel, precision: Precision, directory: Path) -> Manifest:
    graphs = Graph.of(directory / "encoder.onnx"), Graph.of(directory / "head.onnx")
    return replace(
        describe(find(model.detector), model.config, Card(name, threshold_source="random weights")),
        artifacts=(Artifact(ONNX, precision.value, *graphs),),
    )


def _digest() -> str:
    sources = [Path(module.__file__).read_bytes() for module in SOURCES]
    tools = [version(tool).encode() for tool in ("torch", "timm", "onnx", "onnxscript")]
    return hashlib.sha256(b"\0".join((*sources, *tools, repr(CONFIGS).encode()))).hexdigest()[:12]
