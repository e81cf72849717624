"""A checkpoint's detector.json: what the detector, its dimensions and its card say; an export adds what it made."""

from typing import Any

from spai_runtime.manifest import Manifest, Threshold
from spai_train.checkpoint import Card
from spai_train.detectors.spec import DetectorSpec


def describe(spec: DetectorSpec, config: Any, card: Card, threshold: Threshold | None = None) -> Manifest:
    """:param config: the dimensions, of the kind `spec.config`
    :param threshold: None takes that of the card
    :returns: without artifacts; whoever writes some names them with `dataclasses.replace`
    """
    return Manifest(
        name=card.name,
        detector=spec.name,
        views=spec.views(config),
        features=config.features,
        threshold=threshold or Threshold(card.threshold, card.threshold_source),
        positive=card.positive,
        attention=spec.attention,
        notice=card.notice or spec.notice,
    )
