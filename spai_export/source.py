"""A checkpoint on its way to an engine: its modules in each precision, and its scores in fp32."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from torch import nn

from spai_export.accuracy import listed, sample
from spai_export.choices import Precision, Settings
from spai_export.folding import fold
from spai_export.modelopt import require_modelopt
from spai_export.onnx import ExportError
from spai_export.precision import cast
from spai_export.verify import AGAINST
from spai_runtime.accuracy import LIMIT, examples, sentence
from spai_runtime.accuracy_check import AccuracyCheck, AccuracyError
from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_runtime.manifest import Accuracy, Manifest
from spai_runtime.views import CentreCrop, TenCrop
from spai_train.checkpoint import Checkpoint, load_checkpoint
from spai_train.detectors.describe import describe
from spai_train.detectors.spec import DetectorSpec
from spai_train.torch_engine import as_detector


class Source:
    """A checkpoint that is exported.

    :raises UserError: the settings ask for 8 bits on a GPU, and ModelOpt is not installed; or for ten crops of
        a detector that cannot look at them
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        if any(one.quantised and not settings.for_cpu(one) for one in settings.precisions):
            require_modelopt()
        self.checkpoint, self.settings, self.model = checkpoint, settings, checkpoint.model()
        manifest = describe(checkpoint.detector, checkpoint.config, checkpoint.card, settings.threshold)
        self.manifest = with_ten_crops(manifest, checkpoint.detector) if settings.ten_crop else manifest

    @classmethod
    def load(cls, ckpt: Path, settings: Settings, detector: str | None = None, tower: Path | None = None) -> Self:
        """:param detector, tower: see `load_checkpoint`
        :raises UserError: it is no checkpoint or one of another detector; see also the class
        """
        return cls(load_checkpoint(ckpt, detector, tower), settings)

    @property
    def head(self) -> nn.Module:
        """The head, which is in fp32 whatever the precision is."""
        return self.model.head

    def encoder(self, precision: Precision) -> nn.Module:
        """A copy of the encoder that computes in that precision."""
        around, fused = self.settings.around(precision), self.settings.fused(precision)
        return cast(self.checkpoint.detector, self.model.encoder, around, fused=fused)

    def traced(self, precision: Precision) -> nn.Module:
        """A copy of the encoder in that precision, in the form in which its graph is written."""
        copy = self.encoder(precision)
        if precision is Precision.FP32:
            fold(copy)
        return copy

    @cached_property
    def images(self) -> Sequence[Path]:
        """The images on which lower precisions are compared with fp32."""
        return sample(self.settings.images or examples(), self.manifest.views)

    @property
    def folder_size(self) -> int:
        """How many images there are to choose from in the folder that the settings name."""
        return 0 if self.settings.images is None else len(listed(self.settings.images))

    def check_images(self) -> None:
        """Checks that the images that the settings name are there, before minutes of exporting.

        :raises UserError: there is no such folder, or no image in it
        """
        if self.settings.images is not None and not self.images:
            raise AccuracyError(f"no image of {self.settings.images.name} can be scored: give a folder of photographs")

    @property
    def calibration(self) -> Sequence[Path]:
        """The images on which the scales of 8 bits are found: those that the accuracy check does not score, if any."""
        assert self.settings.images is not None
        scored = set(self.images)
        return [path for path in listed(self.settings.images) if path not in scored] or self.images

    @cached_property
    def reference(self) -> Detector:
        """The checkpoint in torch, in fp32, on the CPU, with the threshold of the export."""
        detector = as_detector(self.model, self.checkpoint.card)
        detector.manifest = replace(detector.manifest, views=self.manifest.views)
        detector.threshold = self.manifest.threshold
        return detector

    @cached_property
    def _check(self) -> AccuracyCheck:
        """Scores the images in fp32, once."""
        folder = self.settings.images
        return AccuracyCheck(self.reference, self.images, folder.name if folder else "the examples", AGAINST)

    def compare(self, detector: Detector) -> Accuracy:
        """Measures how far a detector's scores are from those of fp32."""
        return self._check.compare(detector)

    def check_accuracy(self, detector: Detector) -> Accuracy:
        """Compares as `compare` does, for a detector that is to be written. :raises ExportError: see `accept`"""
        return self.accept(self.compare(detector))

    def accept(self, found: Accuracy) -> Accuracy:
        """:raises ExportError: scores are too far from those of fp32, unless the settings force it"""
        if not (found.passed or self.settings.force):
            raise ExportError(
                f"{sentence(found)}; more than {LIMIT} is refused: choose another precision, or give --force"
            )
        return found


def with_ten_crops(manifest: Manifest, spec: DetectorSpec) -> Manifest:
    """A detector that looks at ten crops of the size of its own view; it resizes images before as it did.

    :raises UserError: the detector does not score each view alone
    """
    views = manifest.views
    if not (spec.averages and isinstance(views, CentreCrop)):
        raise UserError(f"{spec.title} does not score one view alone: leave --ten-crop out")
    return replace(manifest, views=TenCrop(views.size, views.resize, views.padding))
