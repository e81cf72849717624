"""Simulated images: scenes, a camera, small generators, and the labelled sets drawn from them."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Image = NDArray[np.uint8]
