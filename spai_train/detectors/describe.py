"""A checkpoint's detector.json: what the detector, its dimensions and its card say; an export adds what it made."""

from typing import Any

from spai_runtime.manifest import Graph, Manifest, Threshold
from spai_train.checkpoint import Card
from spai_train.detectors.spec import DetectorSpec

_NO_GRAPH = Graph("none", "0" * 64)


def describe(spec: DetectorSpec, config: Any, card: Card, threshold: Threshold | None = None) -> Manifest:
    """:param config: the dimensions, of the kind `spec.config`
    :param threshold: None takes that of the card
    :returns: of a model in torch; whoever writes graphs names them with `dataclasses.replace`
    """
    return Manifest(
        name=card.name,
        detector=spec.name,
        views=spec.views(config),
        features=config.features,
        encoder=_NO_GRAPH,
        head=_NO_GRAPH,
        precision="fp32",
        threshold=threshold or Threshold(card.threshold, card.threshold_source),
        notice=card.notice or spec.notice,
    )
