"""A detector: a manifest and two engines, which compute a score from the features of an image's views."""

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spai_runtime.accuracy import accuracy, examples
from spai_runtime.calibration import decimal, log_odds, probability
from spai_runtime.choice import Requested
from spai_runtime.closing import Closing
from spai_runtime.engines.base import Array, DeviceLostError, Engine
from spai_runtime.errors import EngineError, ImageError, UserError
from spai_runtime.exported import Exported
from spai_runtime.images import FORMATS, Picture, Source
from spai_runtime.loading import Engines, load_engines
from spai_runtime.manifest import FILE_NAME, Accuracy, Artifact, Manifest, Precision, Threshold
from spai_runtime.results import Score
from spai_runtime.scoring.batchers import encode
from spai_runtime.views import Layout

log = logging.getLogger("spai_runtime")

ImageSource = Source | NDArray[np.uint8] | Image.Image


class Detector(Closing):
    """An exported detector that is loaded. Use it in a `with`, or `close` it.

    :param manifest: the manifest of its directory
    :param encoder, head: the engines of its graphs
    :param threshold: the threshold that decides labels
    :param artifact: the artifact that the engines were loaded from; None if the detector has no directory
    """

    def __init__(
        self, manifest: Manifest, encoder: Engine, head: Engine, threshold: Threshold, artifact: Artifact | None = None
    ) -> None:
        self.manifest = manifest
        self.encoder = encoder
        self.head = head
        self.threshold = threshold
        self.artifact = artifact

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        backend: str | None = None,
        precision: Precision | None = None,
        threshold: float | None = None,
        untrusted: bool = False,
    ) -> Self:
        """Load an exported directory.

        :param path: the directory or a graph in it; None is the demo detector, whose scores are not a verdict
        :param device: `auto` (the best that loads), `cpu`, `cuda:0`, or several GPUs, `cuda:0,1`
        :param backend: a name from the table of engines, e.g. `onnxruntime`; None allows any
        :param precision: the precision in which the encoder computes its large products. None is the fastest one whose
            scores are those of fp32; a graph in fp32 may then run in bf16, whose scores are first compared on the
            example images
        :param threshold: in [0, 1]; None is the threshold of detector.json
        :param untrusted: whether the maker of the directory is not trusted: its graphs then run on the CPU, in child
            processes with limits on memory and time (`engines/isolated.py`); plans, which are native code, are refused
        :raises UserError: something is missing, refused or does not fit; the message says what, in one sentence
        """
        exported = Exported.open(demo_directory() if path is None else Path(path))
        manifest = exported.manifest
        chosen = manifest.threshold if threshold is None else Threshold.given(threshold)

        def compare(*both: Engines) -> Accuracy:
            return _compared(*(cls(manifest, one.encoder, one.head, chosen, one.artifact) for one in both))

        engines = load_engines(exported, Requested(device, backend, precision, untrusted), compare)
        return cls(manifest, engines.encoder, engines.head, chosen, engines.artifact)

    @property
    def precision(self) -> Precision | None:
        """The precision in which the encoder computes its large products; None if the detector has no directory."""
        return self.encoder.computes or (self.artifact.precision if self.artifact else None)

    def score(self, image: ImageSource, formats: Collection[str] = FORMATS) -> Score:
        """Score one image.

        :param image: a path, the bytes of an image file, pixels (H, W, 3) uint8 RGB, or a Pillow image
        :param formats: the formats that are decoded; UNTRUSTED_FORMATS are those for files from strangers
        :raises ImageError: it is not an image, or cannot be decoded
        :raises EngineError: the engines cannot run on it
        """
        encoding = encode(self.encoder, self.manifest, _picture(image, formats))
        if encoding.error:
            raise ImageError(encoding.error)
        (score,) = self.score_features([encoding.features], [encoding.layout])
        if isinstance(score, UserError):
            raise score
        return score

    def layout(self, height: int, width: int) -> Layout:
        """Say where the views of an image of this size lie.

        :raises ImageError: resized or padded, it would pass the limit for decompression bombs; or it has too many views
        """
        return self.manifest.layout(height, width)

    def score_features(
        self, features: Sequence[NDArray[np.float32]], layouts: Sequence[Layout]
    ) -> list[Score | UserError]:
        """Score images, all in one call of the head; an image that fails gets an error in its place.

        The error is an ImageError if the logit is not a finite number, whatever the image did to the graphs. It is an
        EngineError if the image has more views than the head takes.

        :param features: (V, D) for each image
        :param layouts: where the views of each image lie
        :raises DeviceLostError: no GPU is left for the head
        """
        outputs: Sequence[list[Array] | EngineError]
        try:
            outputs = self.head.run_all([image[None] for image in features])
        except DeviceLostError:
            raise
        except EngineError:
            outputs = [self._head(image[None]) for image in features]  # to find out which it is
        return [self._score(output, layout) for output, layout in zip(outputs, layouts, strict=True)]

    def _head(self, features: Array) -> list[Array] | EngineError:
        """The head's outputs, or the reason why it cannot run."""
        try:
            return self.head.run_all([features])[0]
        except DeviceLostError:
            raise
        except EngineError as error:
            return error

    def _score(self, outputs: list[Array] | EngineError, layout: Layout) -> Score | UserError:
        if isinstance(outputs, EngineError):
            return outputs
        logits, *attention = outputs
        if not np.isfinite(logits).all():
            return ImageError(f"the detector's logit is {logits[0, 0]}, which no score follows from")
        logit = decimal(float(logits[0, 0]))
        score = probability(logit, self.manifest.calibration)
        weights, odds = attention[0][0] if attention else None, log_odds(logit, self.manifest.calibration)
        return Score(score, logit, self.threshold.label(score, self.manifest.positive), weights, layout, odds)

    def close(self) -> None:
        """Free the engines."""
        self.encoder.close()
        self.head.close()


def _picture(image: ImageSource, formats: Collection[str]) -> Picture:
    """Make a picture from any kind of source. :raises ImageError: it is not an image"""
    if isinstance(image, Image.Image):
        return Picture(image)
    return Picture.from_array(image) if isinstance(image, np.ndarray) else Picture.open(image, formats)


def _compared(detector: Detector, reference: Detector) -> Accuracy:
    """How far the scores of both are apart on the example images. :raises EngineError: an image has no score"""
    paths = sorted(path for path in examples().glob("*.*") if path.suffix in (".jpg", ".png"))
    log.info("comparing %s with %s on %d example images, once", detector.precision, reference.precision, len(paths))
    try:
        expected, found = ([one.score(path) for path in paths] for one in (reference, detector))
        against = f"{reference.precision} in {reference.encoder.label}"
        return accuracy(found, expected, detector.encoder.label, "the examples", against)
    except (ImageError, ValueError) as error:  # ValueError: there are no examples
        raise EngineError(f"the example images cannot be scored in {detector.precision}: {error}") from error


def demo_directory() -> Path:
    """The directory of the demo detector: inside an installed wheel, or in a checkout's `weights/`."""
    package = Path(__file__).parent
    candidates = package / "demo", package.parent / "weights" / "demo"
    return next((path for path in candidates if (path / FILE_NAME).is_file()), candidates[-1])
