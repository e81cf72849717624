"""The card of a detector: what a reader of a score must know about the detector that gave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from spai_runtime.detector import Detector
from spai_runtime.manifest import Sha256


@dataclass(frozen=True)
class Card:
    """A detector as a report shows it. What is not known is "" or None.

    :param name: the name of the detector; `method` is what it is, e.g. `spai`
    :param checkpoint: the name of the file that it was exported from; `checkpoint_sha256` is that file's digest
    :param encoder_sha256: the digest of the graph or the plan that ran
    :param engine: what ran it, in words; `precision` is the one that it computed in
    :param threshold: the threshold that decides labels; `threshold_source` says where it came from
    :param positive: the label of a score above it
    :param calibration: its method, and where it came from
    :param code_licence, weights_licence: the licences of what the authors of the method have published
    :param notice: what must be read before a score is trusted
    :param attention: whether the head says how much it looked at each view
    """

    name: str
    method: str = ""
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    encoder_sha256: str = ""
    engine: str = ""
    precision: str = ""
    threshold: float | None = None
    threshold_source: str = ""
    positive: str = "ai"
    calibration: str = ""
    code_licence: str = ""
    weights_licence: str = ""
    notice: str = ""
    attention: bool = False

    @classmethod
    def of(cls, detector: Detector) -> Self:
        """The card of a detector that is loaded."""
        manifest, artifact, calibration = detector.manifest, detector.artifact, detector.manifest.calibration
        made = _Provenance.read(manifest.provenance)
        return cls(
            name=manifest.name,
            method=manifest.detector,
            checkpoint=made.checkpoint,
            checkpoint_sha256=made.checkpoint_sha256,
            encoder_sha256=artifact.encoder.sha256 if artifact else "",
            engine=detector.encoder.label,
            precision=detector.precision or "",
            threshold=detector.threshold.value,
            threshold_source=detector.threshold.source,
            positive=manifest.positive,
            calibration=f"{type(calibration).__name__}: {calibration.source}" if calibration else "",
            code_licence=made.licences.get("code", ""),
            weights_licence=made.licences.get("weights", ""),
            notice=manifest.notice,
            attention=manifest.attention,
        )


@dataclass(frozen=True)
class Fused:
    """How the scores of several detectors became one."""

    rule: str
    threshold: float
    threshold_source: str


def cards_of(record: Mapping[str, Any], names: Sequence[str]) -> Sequence[Card]:
    """The cards of an earlier run.

    :param record: the content of the `.run.json` beside the run's rows; {} if there is none
    :param names: the detectors' names in the columns of the rows; [""] if there is one detector
    :returns: a card for each name; it has only the name if nothing else is known
    """
    try:
        cards = msgspec.convert(record.get("cards", []), list[Card])
    except msgspec.ValidationError:
        cards = []
    if len(cards) == len(names):
        return cards
    return [Card(name=name or "detector") for name in names]


@dataclass(frozen=True)
class _Provenance:
    """The part of a manifest's `provenance` that a card shows; whoever wrote detector.json may have left it out."""

    checkpoint: str = ""
    checkpoint_sha256: Sha256 | str = ""
    licences: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, provenance: Mapping[str, Any]) -> Self:
        try:
            return msgspec.convert(provenance, cls)
        except msgspec.ValidationError:
            return cls()
