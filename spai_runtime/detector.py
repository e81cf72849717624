"""A detector: views → encoder in full batches → head → score."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spai_runtime.calibration import decimal, log_odds, probability
from spai_runtime.closing import Closing
from spai_runtime.engines import Array, DeviceEngine, DeviceLostError, Engine, buckets
from spai_runtime.engines.cuda.jpeg import JpegDecoder
from spai_runtime.errors import EngineError, ImageError, UserError
from spai_runtime.images import Picture
from spai_runtime.loading import Exported, load_engines
from spai_runtime.manifest import FILE_NAME, Graph, Manifest, Threshold
from spai_runtime.results import Label, Score
from spai_runtime.scoring.batcher import Batcher, HostBatcher, Job
from spai_runtime.scoring.device_batcher import DeviceBatcher

ImageSource = str | os.PathLike[str] | bytes | NDArray[np.uint8]


class Detector(Closing):
    """An exported detector, loaded. Use it in a `with`, or `close` it.

    :param manifest: of its directory
    :param encoder, head: engines of its graphs
    :param threshold: that labels are decided by
    :param graphs: the files behind the engines; None are those of the manifest
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: Engine,
        head: Engine,
        threshold: Threshold,
        graphs: tuple[Graph, Graph] | None = None,
    ) -> None:
        self.manifest = manifest
        self.encoder = encoder
        self.head = head
        self.threshold = threshold
        self.graphs = graphs or (manifest.encoder, manifest.head)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: str = "auto", threshold: float | None = None
    ) -> Self:
        """Loads an exported directory.

        :param path: the directory or a graph in it; None is the demo detector, whose scores are no verdict
        :param device: `auto` (the best that loads), `cpu`, `cuda:0`, or several GPUs, `cuda:0,1`
        :param threshold: in [0, 1]; None is that of detector.json
        :raises UserError: what is missing, refused or does not fit, in one sentence
        """
        exported = Exported.open(demo_directory() if path is None else Path(path))
        engines, manifest = load_engines(exported, device), exported.manifest
        chosen = manifest.threshold if threshold is None else Threshold(threshold, "given by the user")
        return cls(manifest, engines.encoder, engines.head, chosen, engines.graphs)

    def score(self, image: ImageSource) -> Score:
        """Scores one image.

        :param image: a path, the bytes of an image file, or pixels (H, W, 3) uint8 RGB
        :raises ImageError: it is none, or cannot be decoded
        :raises EngineError: the engines cannot run it
        """
        picture = Picture.from_array(image) if isinstance(image, np.ndarray) else Picture.open(image)
        job = self.job(picture)
        most = self.encoder.batch_size
        with self.batcher(next(size for size in buckets(most) if size >= min(len(job.layout), most))) as batcher:
            batcher.prepare(job)
            batcher.add(job)
            batcher.flush()
        return self.score_features(job)

    def job(self, picture: Picture) -> Job:
        """The work that a picture is for this detector; the picture need not be decoded yet.

        :raises ImageError: padding a sliver to the side of a view would pass the limit of decompression bombs
        """
        height, width, side = picture.height, picture.width, self.manifest.views.size  # type: ignore[union-attr]
        limit = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else math.inf
        if max(height, side) * max(width, side) > limit:
            raise ImageError(f"{width}×{height} pixels would be padded past the limit of {limit} pixels; crop it")
        return Job(picture, self.manifest.views.layout(height, width), self.manifest.features)

    def batcher(self, batch_size: int | None = None, decoder: JpegDecoder | None = None) -> Batcher:
        """What gathers views of many jobs into batches of this detector's encoder.

        :param batch_size: views; None is what the encoder's engine is fastest with
        :param decoder: of JPEGs, on the encoder's GPU; None is Pillow
        """
        batch_size = batch_size or self.encoder.batch_size
        if isinstance(self.encoder, DeviceEngine):
            return DeviceBatcher(self.encoder, batch_size, decoder)
        assert decoder is None
        return HostBatcher(self.encoder, self.manifest.views.size, batch_size)  # type: ignore[union-attr]

    def score_features(self, job: Job) -> Score:
        """Features of all views of an image → its score.

        :raises ImageError: see `score_features_all`
        :raises EngineError: the head does not take so many views, or cannot run
        """
        (score,) = self.score_features_all([job])
        if isinstance(score, UserError):
            raise score
        return score

    def score_features_all(self, jobs: Sequence[Job]) -> list[Score | UserError]:
        """As `score_features` of each, all given to the head at once; what is wrong with one image stands in its place.

        An ImageError: it has no features, or a logit that is not a finite number, whatever it did to the graphs. An
        EngineError: it has more views than the head takes.

        :raises DeviceLostError: no GPU is left for the head
        """
        assert all(job.done for job in jobs)
        outputs = iter(self._heads([job.features[None] for job in jobs if not job.error]))
        return [ImageError(job.error) if job.error else self._score(job, next(outputs)) for job in jobs]

    def _heads(self, features: Sequence[Array]) -> list[list[Array] | EngineError]:
        """The head's outputs; where it refuses to run them all, those of each, to find out which it is."""
        try:
            return [*self.head.run_all(features)]
        except DeviceLostError:
            raise
        except EngineError as error:
            if len(features) == 1:
                return [error]
            return [output for one in features for output in self._heads([one])]

    def _score(self, job: Job, outputs: list[Array] | EngineError) -> Score | UserError:
        if isinstance(outputs, EngineError):
            return outputs
        logits, attention = outputs
        if not np.isfinite(logits).all():
            return ImageError(f"the detector's logit is {logits[0, 0]}, which no score follows from")
        logit = decimal(float(logits[0, 0]))
        calibration = self.manifest.calibration
        score = probability(logit, calibration)
        label: Label = "ai" if score > self.threshold.value else "real"
        return Score(score, logit, label, attention[0], job.layout, log_odds(logit, calibration))

    def close(self) -> None:
        """Frees the engines."""
        self.encoder.close()
        self.head.close()


def demo_directory() -> Path:
    """The demo detector: inside an installed wheel, or in a checkout's `weights/`."""
    package = Path(__file__).parent
    candidates = package / "demo", package.parent / "weights" / "demo"
    return next((path for path in candidates if (path / FILE_NAME).is_file()), candidates[-1])
