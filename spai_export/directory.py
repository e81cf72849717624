"""A checkpoint → the exported directory: encoder.onnx, head.onnx, detector.json."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from spai_export.onnx import OPSET, ExportError, export_encoder, export_head
from spai_export.verify import BATCH_SIZES, TOLERANCE, Differences, verify
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Threshold
from spai_runtime.views import ViewPolicy
from spai_train.checkpoint import Checkpoint, load_checkpoint

TOOLS = ("spai-toolkit", "torch", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What an export has made."""

    directory: Path
    manifest: Manifest
    differences: Differences
    tolerance: Differences = TOLERANCE

    @property
    def files(self) -> Sequence[Path]:
        names = self.manifest.encoder.file, self.manifest.head.file, FILE_NAME
        return [self.directory / name for name in names]


def export(ckpt: Path, output: Path, threshold: Threshold | None = None) -> Exported:
    """Exports in fp32, verifies, and only then lets the files appear in `output`.

    :param threshold: None takes that of the checkpoint
    :raises UserError: the checkpoint is none, the graphs differ from it, or `output` cannot be written
    """
    checkpoint = load_checkpoint(ckpt)
    model = checkpoint.model()
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as folder:
            directory = Path(folder)
            export_encoder(model.encoder, checkpoint.config.tile_size, directory / "encoder.onnx")
            export_head(model.head, checkpoint.config.features, directory / "head.onnx")
            manifest = _manifest(checkpoint, directory, threshold)
            _write(manifest, directory)
            differences = verify(model, directory)
            manifest = _verified(manifest, differences)
            _write(manifest, directory)
            exported = Exported(output, manifest, differences)
            for path in exported.files:  # detector.json last: a directory that has it is whole
                (directory / path.name).replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror}") from error
    return exported


def _manifest(checkpoint: Checkpoint, directory: Path, threshold: Threshold | None) -> Manifest:
    config, card = checkpoint.config, checkpoint.card
    return Manifest(
        name=card.name,
        detector="spai",
        views=ViewPolicy(config.tile_size, config.tile_stride, config.minimum_tiles),
        features=config.features,
        encoder=Graph.of(directory / "encoder.onnx"),
        head=Graph.of(directory / "head.onnx"),
        precision="fp32",
        threshold=threshold or Threshold(card.threshold, card.threshold_source),
        notice=card.notice,
        provenance={
            "checkpoint": checkpoint.path.name,
            "checkpoint_sha256": checkpoint.sha256,
            "opset": OPSET,
            "tools": {tool: version(tool) for tool in TOOLS},
        },
    )


def _verified(manifest: Manifest, differences: Differences) -> Manifest:
    found = {
        "against": "torch, fp32, cpu",
        "views_per_batch": list(BATCH_SIZES),
        "largest_difference": {name: float(f"{value:.2e}") for name, value in asdict(differences).items()},
        "tolerance": asdict(TOLERANCE),
    }
    return replace(manifest, provenance={**manifest.provenance, "verified": found})


def _write(manifest: Manifest, directory: Path) -> None:
    (directory / FILE_NAME).write_bytes(manifest.dump())
