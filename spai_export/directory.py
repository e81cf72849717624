"""A checkpoint → the exported directory: encoder.onnx, head.onnx, detector.json, and the plans beside them."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from spai_export import lint
from spai_export.choices import Precision
from spai_export.gate import LIMIT, Deviation, Gate, examples, listed, sample
from spai_export.modelopt import require_modelopt
from spai_export.onnx import FUSED_OPSET, OPSET, ExportError, export_encoder, export_head
from spai_export.precision import cast
from spai_export.quantize import calibration_views, quantize
from spai_export.verify import BATCH_SIZES, Differences, tolerance, verify
from spai_runtime.detector import Detector
from spai_runtime.engines import Contract, Engine
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Threshold
from spai_runtime.views import Tiles
from spai_train.checkpoint import Checkpoint, load_checkpoint
from spai_train.torch_engine import TorchEngine, as_detector

TOOLS = ("spai-toolkit", "torch", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Settings:
    """Of an export.

    :param fused: whether attention is one node, of opset 23
    :param threshold: None takes that of the checkpoint
    :param images: folder of what lower precisions are calibrated on and held against fp32 on; None are the examples
    :param force: whether a detector is written whose scores are too far from those of fp32
    """

    precision: Precision = Precision.FP32
    fused: bool = False
    threshold: Threshold | None = None
    images: Path | None = None
    force: bool = False


class Source:
    """A checkpoint on its way to an engine, and what it says in fp32.

    :raises UserError: the settings ask for ModelOpt and it is not installed, or for 8 bits and name no images
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        if settings.precision.quantised:
            _check_quantisable(settings)
        self.checkpoint, self.settings, self.model = checkpoint, settings, checkpoint.model()
        self.encoder = cast(checkpoint.detector, self.model.encoder, settings.precision, fused=settings.fused)
        config = checkpoint.config
        self.policy = Tiles(config.tile_size, config.tile_stride, config.minimum_tiles)

    @classmethod
    def load(cls, ckpt: Path, settings: Settings) -> Self:
        """:raises UserError: the checkpoint is none; see also the class"""
        return cls(load_checkpoint(ckpt), settings)

    @cached_property
    def images(self) -> Sequence[Path]:
        """On which lower precisions are held against fp32."""
        return sample(self.settings.images or examples(), self.policy)

    @property
    def calibration(self) -> Sequence[Path]:
        """On which the scales of 8 bits are found: images that judge nothing, where there are any."""
        assert self.settings.images is not None
        judging = set(self.images)
        return [path for path in listed(self.settings.images) if path not in judging] or self.images

    @cached_property
    def reference(self) -> Detector:
        """The checkpoint in torch, in fp32, on the CPU."""
        return as_detector(self.model, self.checkpoint.card)

    @cached_property
    def gate(self) -> Gate:
        """Scores the images in fp32, once."""
        folder = self.settings.images
        return Gate(self.reference, self.images, folder.name if folder else "the examples")

    def admit(self, detector: Detector) -> Deviation:
        """How far a detector's scores are from those of fp32.

        :raises ExportError: too far, unless the settings force it
        """
        deviation = self.gate.hold(detector)
        if not (deviation.passed or self.settings.force):
            raise ExportError(f"{deviation}; more than {LIMIT} is refused: choose another precision, or give --force")
        return deviation


@dataclass(frozen=True)
class Exported:
    """What an export has made.

    :param differences: of the graphs from torch, both computing in float32; and what is tolerated
    :param deviation: of the scores from those of fp32; None where the graphs are fp32
    """

    directory: Path
    manifest: Manifest
    differences: Differences
    tolerance: Differences
    deviation: Deviation | None = None

    @property
    def files(self) -> Sequence[Path]:
        names = self.manifest.encoder.file, self.manifest.head.file, FILE_NAME
        return [self.directory / name for name in names]


def export(ckpt: Path, output: Path, settings: Settings = Settings()) -> Exported:
    """Exports a checkpoint; see `write`."""
    return write(Source.load(ckpt, settings), output)


def write(source: Source, output: Path) -> Exported:
    """Exports, verifies, holds against fp32, and only then lets the files appear in `output`.

    :raises UserError: the graphs differ from the checkpoint, are none that TensorRT imports, or give other scores; or
        `output` cannot be written
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as folder:
            made = _make(source, Path(folder))
            exported = replace(made, directory=output)
            for path in exported.files:  # detector.json last: a directory that has it is whole
                (made.directory / path.name).replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror}") from error
    return exported


def _check_quantisable(settings: Settings) -> None:
    require_modelopt()
    if settings.images is None:
        raise ExportError(
            f"{settings.precision} finds its scales on images: give --calibrate a folder of 500 such as will be judged"
        )
    if settings.fused:
        raise ExportError(f"{settings.precision} needs its attention plain: leave --attention out")


def _make(source: Source, directory: Path) -> Exported:
    precision = source.settings.precision
    _write_graphs(source, directory)
    differences = verify(source.encoder, source.model.head, directory, source.checkpoint.config.features)
    limits = tolerance(source.encoder)
    found: dict[str, Any] = {"verified": _verified(differences, limits)}
    if precision.quantised:
        found["quantised"] = _quantise(source, directory / "encoder.onnx")
    for name in ("encoder.onnx", "head.onnx"):
        lint.check(directory / name, lint.VERSIONS[-1:] if source.settings.fused else lint.VERSIONS)
    deviation = None
    if precision is not Precision.FP32:
        deviation = _deviation(source, directory)
        found["gate"] = deviation.as_provenance()
    manifest = _manifest(source, directory, found)
    write_manifest(manifest, directory)
    return Exported(directory, manifest, differences, limits, deviation)


def _write_graphs(source: Source, directory: Path) -> None:
    config, opset = source.checkpoint.config, FUSED_OPSET if source.settings.fused else OPSET
    export_encoder(source.encoder, config.tile_size, directory / "encoder.onnx", opset)
    export_head(source.model.head, config.features, directory / "head.onnx")


def _quantise(source: Source, graph: Path) -> dict[str, Any]:
    """Quantises the graph in its place. :returns: what detector.json says of it"""
    images = source.calibration
    views = calibration_views(images, source.policy)
    done = quantize(graph, source.settings.precision, views, graph)
    return {
        "calibration_images": len(images),
        "calibration_views": len(views),
        "judged_on_them": images is source.images,
        "products": len(done.products),
        "left_in_fp16": len(done.left),
    }


def _deviation(source: Source, directory: Path) -> Deviation:
    """Of the encoder in its precision, with the head that is fp32 in all of them."""
    reference = source.reference
    with Detector(reference.manifest, _encoder(source, directory), reference.head, reference.threshold) as detector:
        return source.admit(detector)


def _encoder(source: Source, directory: Path) -> Engine:
    """The graph on the CPU; torch for bf16, for which ONNX Runtime has no kernels there."""
    config, precision = source.checkpoint.config, source.settings.precision
    if precision is Precision.BF16:
        return TorchEngine(source.encoder, "cpu")
    contract = Contract.encoder(config.tile_size, config.features)
    movable = precision is not Precision.FP8  # which ONNX Runtime moves to where it then refuses it
    return OnnxEngine(directory / "encoder.onnx", contract, rewrites=movable)


def _manifest(source: Source, directory: Path, found: dict[str, Any]) -> Manifest:
    config, card, settings = source.checkpoint.config, source.checkpoint.card, source.settings
    return Manifest(
        name=card.name,
        detector="spai",
        views=source.policy,
        features=config.features,
        encoder=Graph.of(directory / "encoder.onnx"),
        head=Graph.of(directory / "head.onnx"),
        precision=settings.precision.value,
        threshold=settings.threshold or Threshold(card.threshold, card.threshold_source),
        notice=card.notice,
        provenance={
            "checkpoint": source.checkpoint.path.name,
            "checkpoint_sha256": source.checkpoint.sha256,
            "opset": FUSED_OPSET if settings.fused else OPSET,
            "tools": {tool: version(tool) for tool in TOOLS},
            **found,
        },
    )


def _verified(differences: Differences, limits: Differences) -> dict[str, Any]:
    return {
        "against": "torch, fp32, cpu",
        "views_per_batch": list(BATCH_SIZES),
        "largest_difference": {name: float(f"{value:.2e}") for name, value in asdict(differences).items()},
        "tolerance": asdict(limits),
    }


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Writes detector.json."""
    (directory / FILE_NAME).write_bytes(manifest.dump())
