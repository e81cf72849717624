"""A checkpoint on its way to an engine: its modules in each precision, and what it says in fp32."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from torch import nn

from spai_export.accuracy import LIMIT, AccuracyCheck, examples, listed, sample, sentence
from spai_export.choices import Precision, Settings
from spai_export.modelopt import require_modelopt
from spai_export.onnx import ExportError
from spai_export.precision import cast
from spai_runtime.detector import Detector
from spai_runtime.manifest import Accuracy
from spai_train.checkpoint import Checkpoint, load_checkpoint
from spai_train.detectors.describe import describe
from spai_train.torch_engine import as_detector


class Source:
    """A checkpoint that is exported.

    :raises UserError: the settings ask for 8 bits, and ModelOpt is not installed
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        if any(precision.quantised for precision in settings.precisions):
            require_modelopt()
        self.checkpoint, self.settings, self.model = checkpoint, settings, checkpoint.model()
        self.manifest = describe(checkpoint.detector, checkpoint.config, checkpoint.card, settings.threshold)

    @classmethod
    def load(cls, ckpt: Path, settings: Settings, detector: str | None = None) -> Self:
        """:param detector: that the checkpoint must be of; None takes it from the checkpoint
        :raises UserError: it is no checkpoint, or one of another detector; see also the class
        """
        return cls(load_checkpoint(ckpt, detector), settings)

    @property
    def head(self) -> nn.Module:
        """In fp32, as it is whatever the precision."""
        return self.model.head

    def encoder(self, precision: Precision) -> nn.Module:
        """A copy that computes in that precision."""
        return cast(self.checkpoint.detector, self.model.encoder, precision, fused=self.settings.fused(precision))

    @cached_property
    def images(self) -> Sequence[Path]:
        """On which lower precisions are compared with fp32."""
        return sample(self.settings.images or examples(), self.manifest.views)

    @property
    def calibration(self) -> Sequence[Path]:
        """On which the scales of 8 bits are found: images that the accuracy check does not score, if there are any."""
        assert self.settings.images is not None
        scored = set(self.images)
        return [path for path in listed(self.settings.images) if path not in scored] or self.images

    @cached_property
    def reference(self) -> Detector:
        """The checkpoint in torch, in fp32, on the CPU, with the threshold of the export."""
        detector = as_detector(self.model, self.checkpoint.card)
        detector.threshold = self.manifest.threshold
        return detector

    @cached_property
    def _check(self) -> AccuracyCheck:
        """Scores the images in fp32, once."""
        folder = self.settings.images
        return AccuracyCheck(self.reference, self.images, folder.name if folder else "the examples")

    def check_accuracy(self, detector: Detector) -> Accuracy:
        """How far a detector's scores are from those of fp32.

        :raises ExportError: too far, unless the settings force it
        """
        found = self._check.compare(detector)
        if not (found.passed or self.settings.force):
            raise ExportError(
                f"{sentence(found)}; more than {LIMIT} is refused: choose another precision, or give --force"
            )
        return found
