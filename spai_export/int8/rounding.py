"""What 8 bits make of numbers, in NumPy: as the engines will compute, so that an error is known before a graph runs.

Activations are unsigned with a zero point, one scale a tensor: on the demo detector, what goes into the layer behind a
GELU, nearly all of it positive, is off by 1.6 times as much with signed numbers around 0, and both engines multiply one
as fast as the other. The range is that of the smallest and the largest value that were seen: ranges of least error
were at most a tenth better there, and the 99.999th percentile was worse. Weights are signed, one scale a column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STEPS = 255  # of an activation, between its smallest and its largest value
LARGEST = 127  # a weight, in steps of its column


@dataclass(frozen=True)
class Range:
    """What an activation may be; 0 is always in it, since padding and masks are 0."""

    low: float
    high: float

    @classmethod
    def of(cls, low: Floats, high: Floats) -> "Range":
        """From the smallest and largest values (D,) of each channel."""
        return cls(min(0.0, float(low.min())), max(0.0, float(high.max())))

    def rounded(self, values: Floats) -> Floats:
        """The values that 8 bits hold, any shape; those outside of the range are its ends."""
        scale = (self.high - self.low) / STEPS or 1.0
        zero = np.round(-self.low / scale)
        steps = np.clip(np.round(values / scale) + zero, 0, STEPS) - zero
        return np.asarray(steps * scale, np.float32)


def rounded_weight(weight: Floats) -> Floats:
    """(D, P) → the same in 8 bits, with a scale for each of its P columns."""
    scale = np.abs(weight).max(axis=0) / LARGEST
    scale[scale == 0] = 1
    return np.asarray(np.round(weight / scale) * scale, np.float32)


def product_error(rows: Floats, weight: Floats, within: Range) -> Floats:
    """What 8 bits change in a product.

    :param rows: (…, D)
    :param weight: (D, P)
    :returns: (…, P)
    """
    return within.rounded(rows) @ rounded_weight(weight) - rows @ weight
