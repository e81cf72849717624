"""The power of Gaussian noise that is cut to whole grey levels towards zero."""

import numpy as np
from scipy import stats


def power(sigma: float) -> float:
    """E[trunc(z)²] of z ~ N(0, σ²): the sum over k ≥ 1 of (2k − 1)·P(|z| ≥ k)."""
    levels = np.arange(1, 400)
    return float(2 * ((2 * levels - 1) * stats.norm.sf(levels / sigma)).sum())
