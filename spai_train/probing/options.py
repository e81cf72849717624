"""What a probe can be asked for, in a file without torch and scikit-learn, so that --help needs neither."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from spai_runtime.errors import UserError
from spai_runtime.manifest import Positive
from spai_runtime.text import visible
from spai_train.detectors import find

PROBE = "probe"  # the detector whose encoder is any model of timm


class Classifier(StrEnum):
    """What is fitted to the features; each becomes a linear layer."""

    LOGISTIC = "logistic"
    SVM = "svm"

    @property
    def described(self) -> str:
        """The classifier in sentences."""
        return {Classifier.LOGISTIC: "logistic regression", Classifier.SVM: "linear SVM"}[self]


@dataclass(frozen=True)
class Encoder:
    """The encoder whose features are read: a model of timm, a detector's with named weights, or a checkpoint's.

    :param backbone: a model of timm; None for other detectors than `probe`
    :param detector: a row of the table; None takes that of the checkpoint, else `probe`
    :param pretrained: weights of the backbone: a file, or `timm`; None takes `timm` for a model of timm
    :param start: a checkpoint whose encoder is kept, and whose linear layer is fitted anew
    :param tower: the file of the backbone that `start` leaves out; None looks for the published one beside it
    :param normalised: whether a model of timm gives features of length 1
    """

    backbone: str | None = None
    detector: str | None = None
    pretrained: str | None = None
    start: Path | None = None
    tower: Path | None = None
    normalised: bool = False

    def __post_init__(self) -> None:
        """:raises UserError: settings do not go together, or there is no such detector"""
        if self.detector is not None:
            find(self.detector)
        if self.start and (self.backbone or self.pretrained or self.normalised):
            raise UserError("--start has an encoder of its own: leave --backbone, --pretrained and --normalise out")
        if self.tower and not self.start:
            raise UserError("--tower is for --start: without it, --pretrained names the file of a detector's backbone")
        if self.backbone and self.detector not in (None, PROBE):
            raise UserError(f"--backbone is for the detector {PROBE}: leave --detector {self.detector} or it out")
        if self.start is None and self.detector not in (None, PROBE) and self.pretrained is None:
            raise UserError(
                f"--detector {self.detector} needs the weights of its backbone: give --pretrained or --start"
            )
        if self.start is None and self.detector in (None, PROBE) and not self.backbone:
            raise UserError(
                "name an encoder: --backbone NAME of timm, --detector NAME with --pretrained, or --start CHECKPOINT"
            )
        if self.normalised and not self.backbone:
            raise UserError("--normalise is for --backbone: what other detectors do with features is theirs")


@dataclass(frozen=True)
class Fitting:
    """How the linear layer is fitted.

    :param pairs: so many real and so many AI-generated training images, drawn from the seed; None takes all
    :param seed: the seed of that draw and of the SVM's draws
    :param positive: what the detector shall say of images like those of class 1; None takes its encoder's word
    """

    classifier: Classifier = Classifier.LOGISTIC
    pairs: int | None = None
    seed: int = 0
    positive: str | None = None

    def __post_init__(self) -> None:
        """:raises UserError: `positive` is no word that rows may have"""
        try:
            msgspec.convert(self.positive, Positive | None)
        except msgspec.ValidationError as error:
            raise UserError(
                f"--positive {visible(str(self.positive))}: give a word of small letters, digits, - and _, as edited, "
                "and neither real nor error"
            ) from error
