"""The card of a detector: what somebody who reads a score must know of who gave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from spai_runtime.detector import Detector
from spai_runtime.manifest import Sha256


@dataclass(frozen=True)
class Card:
    """A detector as a report shows it. What is not known is "" or None.

    :param name: of the detector; `method` is what it is, e.g. `spai`
    :param checkpoint: name of the file that it was exported from, and `checkpoint_sha256` of it
    :param encoder_sha256: of the graph or the plan that ran
    :param engine: what ran it, in words, and `precision`, that it computed in
    :param threshold: that labels are decided by, and `threshold_source`, where it came from
    :param positive: the label of a score above it
    :param calibration: method, and where it came from
    :param code_licence, weights_licence: of what the authors of the method have published
    :param notice: what must be read before a score is trusted
    :param attention: whether it says how much it looked at each view
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
        """Of a detector that is loaded."""
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

    :param record: what lies beside its rows as `.run.json`; {} where nothing does
    :param names: of the detectors, as the columns of the rows have them; [""] of one alone
    :returns: a card for each name, which says no more than the name where nothing else is known
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
