"""A checkpoint → the exported directory: graphs in each precision, and the detector.json that names them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spai_export.artifacts import ENCODER, Made, export_shared_head, make_artifact
from spai_export.choices import Settings, file_name, labelled
from spai_export.onnx import ExportError
from spai_export.source import Source
from spai_runtime.engines.onnx_session import import_runtime
from spai_runtime.files.atomic import atomic_directory
from spai_runtime.manifest import FILE_NAME, Manifest
from spai_train import card
from spai_train.zoo import ZOO

TOOLS = ("spai-toolkit", "torch", "timm", "onnx", "onnxscript")


@dataclass(frozen=True)
class ExportReport:
    """What an export has made.

    :param made: the artifacts of the manifest, in its order
    :param own_card: whether README.md is the user's own, and was left as it is
    """

    directory: Path
    manifest: Manifest
    made: Sequence[Made]
    own_card: bool = False

    @property
    def files(self) -> Sequence[Path]:
        """All files that were written, each once; detector.json is the last."""
        names = [name for artifact in self.manifest.artifacts for name in artifact.files]
        written = (FILE_NAME,) if self.own_card else (card.FILE_NAME, FILE_NAME)
        return [self.directory / name for name in (*dict.fromkeys(names), *written)]

    @property
    def sentences(self) -> Sequence[str]:
        """What the user is told of the export."""
        alone, limit = len(self.made) == 1, self.manifest.threshold
        found = [line for one in self.made for line in labelled(one.sentences, one.artifact.precision, alone=alone)]
        kept = [f"{card.FILE_NAME} is your own and stays as it is: no model card was written"] if self.own_card else []
        return [*found, f"threshold {limit.value:g}: {limit.source}", *kept]


def export(ckpt: Path, output: Path, settings: Settings | None = None) -> ExportReport:
    """Exports a checkpoint; see `write`."""
    return write(Source.load(ckpt, settings or Settings()), output)


def write(source: Source, output: Path, origin: Mapping[str, Any] | None = None) -> ExportReport:
    """Exports, verifies, compares with fp32, and only then lets the files appear in `output`.

    :param origin: what `provenance` says in addition of where the checkpoint came from
    :raises UserError: graphs differ from the checkpoint, TensorRT does not import them, or they give other scores; or
        `output` cannot be written
    """
    source.check_images()
    precisions = source.settings.precisions
    names = [file_name(ENCODER, precision, first=precision is precisions[0]) for precision in precisions]
    with writing(output) as folder:
        head = export_shared_head(source, folder)
        made = [
            make_artifact(source, precision, folder / name, head)
            for precision, name in zip(precisions, names, strict=True)
        ]
        artifacts = tuple(one.artifact for one in made)
        manifest = replace(source.manifest, artifacts=artifacts, provenance={**_provenance(source), **(origin or {})})
        describe(manifest, folder, output)
    return ExportReport(output, manifest, made, card.is_users(output))


@contextmanager
def writing(directory: Path) -> Iterator[Path]:
    """Gives a folder whose files appear in the directory when the block ends without an error, detector.json last.

    :raises ExportError: the directory cannot be written
    """
    try:
        with atomic_directory(directory, last=FILE_NAME) as folder:
            yield folder
    except OSError as error:
        raise ExportError(f"cannot write {directory}: {error.strerror}") from error


def describe(manifest: Manifest, folder: Path, directory: Path) -> None:
    """Writes detector.json and the model card into a folder.

    :param directory: the directory where they are to appear; a README.md there that is its user's own stays
    """
    if not card.is_users(directory):
        card.write(manifest, folder)
    (folder / FILE_NAME).write_bytes(manifest.dump())


def _provenance(source: Source) -> dict[str, Any]:
    """What all artifacts were made from and made with; what holds for one artifact stands in its `options`."""
    runtime = import_runtime()  # whose package has one of several names
    tower = source.checkpoint.tower
    return {
        "checkpoint": source.checkpoint.path.name,
        "checkpoint_sha256": source.checkpoint.sha256,
        "licences": _licences(source),
        **({"tower": tower.path.name, "tower_sha256": tower.sha256} if tower else {}),
        "tools": {**{tool: version(tool) for tool in TOOLS}, "onnxruntime": runtime.__version__},
    }


def _licences(source: Source) -> dict[str, str]:
    """The licences of the authors' code, and of the weights if they are exactly a file of the zoo, in its words.

    The weights of any other checkpoint are licensed by whoever made them.
    """
    published = (entry.file for entry in ZOO.values() if entry.file.sha256 == source.checkpoint.sha256)
    weights = next((file.licence for file in published), None)
    return {"code": source.checkpoint.detector.code_licence, **({"weights": weights} if weights else {})}
