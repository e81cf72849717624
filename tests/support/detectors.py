"""A detector around any encoder, and what a run of it found."""

from collections.abc import Sequence
from dataclasses import replace

from spai_runtime import Detector, Result, Threshold
from spai_runtime.engines.base import Engine
from tests.support.engines import Mean
from tests.support.manifests import MANIFEST

FEATURES = 3


def detector(encoder: Engine, head: Engine | None = None) -> Detector:
    """Counts channels; its views are tiles of 32, stride 16."""
    return Detector(replace(MANIFEST, features=FEATURES), encoder, head or Mean(), Threshold(0.5, "test"))


def summary(results: Sequence[Result]) -> list[tuple[str, float | None, str]]:
    return [(result.item.name, result.score and result.score.logit, result.error) for result in results]
