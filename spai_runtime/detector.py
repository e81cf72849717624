"""A detector: views → encoder in full batches → head → score."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spai_runtime.batches import Job, Packer
from spai_runtime.calibration import decimal, probability
from spai_runtime.engines import Contract, Engine, load_engine
from spai_runtime.errors import EngineError, ImageError
from spai_runtime.images import Picture
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Threshold
from spai_runtime.views import Layout

ImageSource = str | os.PathLike[str] | bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """What a detector says of one image.

    :param score: probability that the image is AI-generated, in [0, 1]: the sigmoid of the logit, or what the
        detector's calibration makes of it
    :param logit: as the head says it, calibrated or not
    :param label: `ai` where score > threshold, else `real`
    :param attention: (V,) float32, how much the head looked at each view; sums to 1. It does not localise edits.
    :param layout: where the views lie
    """

    score: float
    logit: float
    label: Literal["ai", "real"]
    attention: NDArray[np.float32] = field(repr=False)
    layout: Layout = field(repr=False)

    @property
    def attention_grid(self) -> NDArray[np.float32] | None:
        """(rows, columns) of the tiles; None for an image looked at in five crops, which are no grid."""
        return None if self.layout.grid is None else self.attention.reshape(self.layout.grid)


class Detector:
    """An exported detector, loaded. Use it in a `with`, or `close` it.

    :param manifest: of its directory
    :param encoder, head: engines of its graphs
    :param threshold: that labels are decided by
    """

    def __init__(self, manifest: Manifest, encoder: Engine, head: Engine, threshold: Threshold) -> None:
        self.manifest = manifest
        self.encoder = encoder
        self.head = head
        self.threshold = threshold

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: str = "auto", threshold: float | None = None
    ) -> Self:
        """Loads an exported directory.

        :param path: the directory or a graph in it; None is the demo detector, whose scores are no verdict
        :param device: `auto`, `cpu`, `cuda:0`
        :param threshold: in [0, 1]; None is that of detector.json
        :raises UserError: what is missing, refused or does not fit, in one sentence
        """
        directory, manifest = _open(demo_directory() if path is None else Path(path))
        views, features = manifest.views, manifest.features
        encoder = load_engine(directory / manifest.encoder.file, Contract.encoder(views.size, features), device)
        head = load_engine(directory / manifest.head.file, Contract.head(features), device)
        chosen = manifest.threshold if threshold is None else Threshold(threshold, "given by the user")
        return cls(manifest, encoder, head, chosen)

    def score(self, image: ImageSource) -> Score:
        """Scores one image.

        :param image: a path, the bytes of an image file, or pixels (H, W, 3) uint8 RGB
        :raises ImageError: it is none, or cannot be decoded
        """
        picture = Picture.from_array(image) if isinstance(image, np.ndarray) else Picture.open(image)
        job = self.job(picture)
        picture.load()
        packer = self.packer()
        packer.add(job)
        packer.flush()
        return self.judge(job)

    def job(self, picture: Picture) -> Job:
        """The work that a picture is for this detector; the picture need not be decoded yet.

        :raises ImageError: padding a sliver to the side of a view would pass the limit of decompression bombs
        """
        height, width, side = picture.height, picture.width, self.manifest.views.size
        limit = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else math.inf
        if max(height, side) * max(width, side) > limit:
            raise ImageError(f"{width}×{height} pixels would be padded past the limit of {limit} pixels; crop it")
        return Job(picture, self.manifest.views.layout(height, width), self.manifest.features)

    def packer(self, batch_size: int | None = None) -> Packer:
        """What gathers views of many jobs into batches of this detector's encoder.

        :param batch_size: views; None is what the encoder's engine is fastest with
        """
        return Packer(self.encoder, self.manifest.views.size, batch_size or self.encoder.batch_size)

    def judge(self, job: Job) -> Score:
        """Features of all views of an image → its score.

        :raises ImageError: the logit is not a finite number, whatever that image did to the graphs
        """
        assert job.done
        logits, attention = self.head.run(job.features[None])
        if not np.isfinite(logits).all():
            raise ImageError(f"the detector's logit is {logits[0, 0]}, which no score follows from")
        logit = decimal(float(logits[0, 0]))
        score = probability(logit, self.manifest.calibration)
        return Score(score, logit, "ai" if score > self.threshold.value else "real", attention[0], job.layout)

    def close(self) -> None:
        """Frees the engines."""
        self.encoder.close()
        self.head.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def demo_directory() -> Path:
    """The demo detector: inside an installed wheel, or in a checkout's `weights/`."""
    package = Path(__file__).parent
    candidates = package / "demo", package.parent / "weights" / "demo"
    return next((path for path in candidates if (path / FILE_NAME).is_file()), candidates[-1])


def _open(path: Path) -> tuple[Path, Manifest]:
    """A directory or a graph in it → the directory and its checked manifest."""
    if not path.exists():
        raise EngineError(f"there is no {path}; `spai-export --ckpt CHECKPOINT --output {path}` would make it")
    directory = path if path.is_dir() else path.parent
    if not (directory / FILE_NAME).is_file():
        raise EngineError(f"there is no {FILE_NAME} in {directory}; give --engine a directory that spai-export wrote")
    manifest = Manifest.load(directory)
    graphs = manifest.encoder, manifest.head
    if path != directory and path.name not in [graph.file for graph in graphs]:
        raise EngineError(f"{path} is not a graph of {directory / FILE_NAME}")
    for graph in graphs:
        _check(directory, graph)
    return directory, manifest


def _check(directory: Path, graph: Graph) -> None:
    """The graph must be the very file that was exported and verified."""
    path = directory / graph.file
    if not path.is_file():
        raise EngineError(f"{graph.file} is missing in {directory}; copy it there or export again")
    if Graph.of(path) != graph:
        raise EngineError(f"{path} is not the file that {FILE_NAME} was written for (sha256 differs); export again")
