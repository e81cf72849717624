"""Rounds numbers to 8 bits in NumPy, just as the engines do, so that an error is known before a graph runs.

Activations are unsigned with a zero point, and a tensor has one scale. On the demo detector, signed numbers around 0
make the error of the input behind a GELU, nearly all of which is positive, 1.6 times as large; both engines multiply
either kind equally fast. The range goes from the smallest to the largest value that was seen: ranges of least error
were at most a tenth better there, and the 99.999th percentile was worse. Weights are signed, with one scale a column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STEPS = 255  # of an activation, between its smallest and its largest value
LARGEST = 127  # a weight, in steps of its column


@dataclass(frozen=True)
class Range:
    """The range of an activation; 0 is always in it, since padding and masks are 0."""

    low: float
    high: float

    @classmethod
    def of(cls, low: Floats, high: Floats) -> "Range":
        """The range from the smallest and largest values (D,) of each channel."""
        return cls(min(0.0, float(low.min())), max(0.0, float(high.max())))

    def rounded(self, values: Floats) -> Floats:
        """Rounds values of any shape to those that 8 bits hold; values outside of the range become its ends."""
        scale = (self.high - self.low) / STEPS or 1.0
        zero = np.round(-self.low / scale)
        steps = np.clip(np.round(values / scale) + zero, 0, STEPS) - zero
        return np.asarray(steps * scale, np.float32)


def rounded_weight(weight: Floats) -> Floats:
    """Rounds a weight (D, P) to 8 bits, with a scale for each of its P columns."""
    scale = np.abs(weight).max(axis=0) / LARGEST
    scale[scale == 0] = 1
    return np.asarray(np.round(weight / scale) * scale, np.float32)


def product_error(rows: Floats, weight: Floats, within: Range) -> Floats:
    """The error that 8 bits make in a product.

    :param rows: (…, D)
    :param weight: (D, P)
    :returns: (…, P)
    """
    return within.rounded(rows) @ rounded_weight(weight) - rows @ weight
