"""Results: what detectors say of an image."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Item
from spai_runtime.files.stamps import NO_FILE, Stamp
from spai_runtime.views import Layout


@dataclass(frozen=True)
class Score:
    """What a detector says of one image.

    :param score: probability that the image is AI-generated, in [0, 1]: the sigmoid of the logit, or what the
        detector's calibration makes of it
    :param logit: the head's output, before any calibration
    :param label: `ai`, or the detector's word for what it finds, if score > threshold; otherwise `real`
    :param attention: (V,) float32, how much the head looked at each view; its sum is 1. It does not show where an image
        was edited. None if the head has no attention
    :param layout: where the views lie
    :param log_odds: log(score / (1 − score)) before the score is rounded, for fusion; without calibration it is the
        logit
    """

    score: float
    logit: float
    label: str
    attention: NDArray[np.float32] | None = field(repr=False)
    layout: Layout = field(repr=False)
    log_odds: float = field(repr=False)

    @property
    def attention_grid(self) -> NDArray[np.float32] | None:
        """The attention of the tiles, (rows, columns); None without attention, or for five crops, which are no grid."""
        if self.attention is None or self.layout.grid is None:
            return None
        return self.attention.reshape(self.layout.grid)

    def heat_map(self) -> NDArray[np.float32]:
        """The `attention_grid`, or an error that says why there is none.

        :raises ImageError: the head has no attention, or it looked at crops that overlap
        """
        if self.attention is None:
            raise ImageError("there is no heat map: this detector does not say how much it looked at each view")
        if (grid := self.attention_grid) is None:
            raise ImageError(f"there is no heat map of {len(self.layout)} crops, which lie over one another")
        return grid


@dataclass(frozen=True)
class Result:
    """The outcome of one image: a score from each detector, or an error of one sentence.

    :param scores: in the order of the detectors; None for one that could not score the image; () if none could
    :param width, height: in pixels; None if not even the header could be read
    :param error: what is wrong with the image or with its score; if there are several detectors, it names the detector
    :param stamp: the stamp of the image's file before it was decoded
    """

    item: Item
    scores: tuple[Score | None, ...] = ()
    width: int | None = None
    height: int | None = None
    error: str = ""
    stamp: Stamp = NO_FILE

    @property
    def score(self) -> Score | None:
        """The score of the only detector; None if it has none."""
        assert len(self.scores) <= 1
        return self.scores[0] if self.scores else None
